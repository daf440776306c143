"""Many management actions in one process, as each process costs more than a second to start.

Standard input: a JSON list of actions, `{"action": NAME, ...arguments}`; secrets come this way too.
Standard output: a JSON list with the answer of each. The first action that fails ends the run, with
its error on standard error and status 1; what came before it stays done.
"""

import contextlib
import json
import sys

import django
from lava_site import restored


def migrate():
    """Bring the database up to this release, as the package's postinst does."""
    from django.core.management import call_command, get_commands

    call_command("migrate", interactive=False, fake_initial=True, verbosity=1)
    if "drop_materialized_views" in get_commands():
        call_command("drop_materialized_views")
    if "refresh_queries" in get_commands():
        call_command("refresh_queries", all=True)


def load_pages():
    """Load what the web server loads: a setting it would stumble over fails here, with a reason."""
    from lava_site import wsgi  # noqa: F401


def forget_example_worker():
    """Remove the worker that migrations leave behind; its token may be others' too."""
    from lava_scheduler_app.models import Worker

    Worker.objects.filter(hostname="example.com", device__isnull=True).delete()


def renew_unusable_passwords():
    """Draw anew what marks users without a password, such as one that migrations make."""
    from django.contrib.auth.models import User

    for user in User.objects.filter(password__startswith="!"):
        user.set_unusable_password()
        user.save()


def superuser(name, password, mail=""):
    """Make an administrator, or give the one of that name this password."""
    from django.contrib.auth.models import User

    user, _ = User.objects.get_or_create(username=name)
    user.is_active = user.is_staff = user.is_superuser = True
    user.email = mail or user.email
    user.set_password(password)
    user.save()


def submitter(name):
    """Make a user without a password who may see and submit to everything, and change nothing."""
    from django.contrib.auth.models import Permission, User

    user, made = User.objects.get_or_create(username=name)
    if made:
        user.set_unusable_password()
        user.save()
    allowed = ("view_device", "view_devicetype", "submit_to_device", "submit_to_devicetype")
    user.user_permissions.set(
        Permission.objects.filter(
            content_type__app_label="lava_scheduler_app", codename__in=allowed
        )
    )


def api_token(user, description, secret=""):
    """The token of a user with that description; made or changed into `secret` if that is given."""
    from django.contrib.auth.models import User
    from linaro_django_xmlrpc.models import AuthToken

    owner = User.objects.get(username=user)
    token = AuthToken.objects.filter(user=owner, description=description).first()
    token = token or AuthToken(user=owner, description=description)
    token.secret = secret or token.secret
    token.save()
    return token.secret


def worker(name, token=""):
    """Register a worker unless it is there; its token, which becomes `token` if that is given."""
    from lava_scheduler_app.models import Worker

    found, _ = Worker.objects.get_or_create(hostname=name)
    if token:
        Worker.objects.filter(pk=found.pk).update(token=token)
    return token or found.token


def remove_worker(name):
    """Remove a worker; its devices stay, without one."""
    from lava_scheduler_app.models import Worker

    Worker.objects.filter(hostname=name).delete()


def device_type(name, display=True):
    """Register a device type unless it is there."""
    from lava_scheduler_app.models import DeviceType

    DeviceType.objects.get_or_create(name=name, defaults={"display": display})


def device(name, device_type, worker, health=None, tags=(), description=""):
    """Register a device, or change the one there is; its dictionary is a file in etc/devices.

    `health` is one of LAVA's words (`GOOD`, `MAINTENANCE` …); without it a new device is Unknown,
    which is ready for jobs, and an old one stays as it is.
    """
    from lava_scheduler_app.models import Device, DeviceType, Tag, Worker

    found = Device.objects.filter(hostname=name).first()
    if found is None:
        found = Device(hostname=name, health=Device.HEALTH_UNKNOWN)
    found.device_type = DeviceType.objects.get(name=device_type)
    found.worker_host = Worker.objects.get(hostname=worker)
    found.description = description or found.description
    if health is not None:
        found.health = Device.HEALTH_REVERSE[health.upper()]
    found.save()
    found.tags.set([Tag.objects.get_or_create(name=tag)[0] for tag in tags])


def remove_device(name):
    """Remove a device with its history; a device with jobs is retired instead, as LAVA wants it."""
    from lava_scheduler_app.models import Device

    devices = Device.objects.filter(hostname=name)
    devices.filter(testjobs__isnull=True).delete()
    devices.update(health=Device.HEALTH_RETIRED)


def site(domain, name):
    """The host name in the links of mails, and the name beside it."""
    from django.contrib.sites.models import Site

    current = Site.objects.get_current()
    current.domain, current.name = domain, name[: Site._meta.get_field("name").max_length]
    current.save()


def healths():
    """LAVA's health numbers of all devices and workers, for `set_healths` of the same release."""
    from lava_scheduler_app.models import Device, Worker

    return {
        "devices": dict(Device.objects.values_list("hostname", "health")),
        "workers": dict(Worker.objects.values_list("hostname", "health")),
    }


def set_healths(devices, workers):
    """Put healths back without the side effects of LAVA's own transitions."""
    from lava_scheduler_app.models import Device, Worker

    for name, health in devices.items():
        Device.objects.filter(hostname=name).update(health=health)
    for name, health in workers.items():
        Worker.objects.filter(hostname=name).update(health=health)


def worker_state(name):
    """What LAVA knows of a worker: `{"online": …, "version": …}`, null for none of that name."""
    from lava_scheduler_app.models import Worker

    found = Worker.objects.filter(hostname=name).first()
    return found and {
        "online": found.state == Worker.STATE_ONLINE,
        "version": found.version,
    }


ACTIONS = {
    action.__name__: action
    for action in (
        migrate,
        load_pages,
        forget_example_worker,
        renew_unusable_passwords,
        superuser,
        submitter,
        api_token,
        worker,
        remove_worker,
        device_type,
        device,
        remove_device,
        site,
        healths,
        set_healths,
        worker_state,
        restored.migrations,
        restored.end_running_jobs,
        restored.devices_to_maintenance,
        restored.move_media,
        restored.take_over_worker,
    )
}


def main():
    actions = json.load(sys.stdin)
    unknown = {action["action"] for action in actions} - set(ACTIONS)
    if unknown:
        sys.exit(f"there is no action {', '.join(sorted(unknown))}")
    answers = []
    with contextlib.redirect_stdout(sys.stderr):
        django.setup()
        for words in actions:
            name = words.pop("action")
            try:
                answers.append(ACTIONS[name](**words))
            except Exception as error:
                sys.exit(f"the action {name} failed: {type(error).__name__}: {error}")
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
