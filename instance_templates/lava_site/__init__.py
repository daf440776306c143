"""What makes the LAVA beside it the LAVA of one instance; copied into each instance's etc/site."""

from django.apps import AppConfig

default_app_config = "lava_site.LavaSite"  # read by Django < 3.2 only


class LavaSite(AppConfig):
    name = "lava_site"

    def ready(self):
        from lava_site import files

        files.keep_below_the_instance()
        files.leave_to_who_writes_them()
