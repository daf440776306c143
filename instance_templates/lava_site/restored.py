"""Actions of batch.py that make a database from elsewhere, or from earlier, that of this instance.

They work on any database that LAVA's settings name, and may be repeated. They write rows without
LAVA's signals: nothing is sent to anybody for what did not happen here and now.
"""

import re

# What LAVA writes: `extra: PATH` on a line of its own, or within {…} as before PyYAML 5.1, with the
# path plain or in quotes. For PostgreSQL, as for Python.
MEDIA_PATH = r"""((?:^|\n|\{|,\s+)extra: ['"]?)/[^,\n]*/job-output/(?=\d{4}/\d\d/|job-\d)"""
PLAIN_IN_YAML = re.compile(r"/[\w./+@~-]+")
METADATA_LENGTH = 4096  # lava_results_app.models.TestCase.metadata
SQUASHED = re.compile(r"\d+_squashed_(\d+)")


def migrations():
    """How the database and this release differ, as lists of `APP.MIGRATION`.

    `unknown`: applied by another release, and not known to this one. `missing`: not yet applied.
    `too_old`: of those, the ones that stand for several of which some are applied: an older release
    has to apply the others. Apps that this release does not have are left out: Django, too, leaves
    their tables alone.
    """
    from django.db import connection
    from django.db.migrations.loader import MigrationLoader
    from django.db.migrations.recorder import MigrationRecorder

    loader = MigrationLoader(connection, load=False)  # whose whole graph fails on what is too old
    loader.load_disk()
    replaced = {key: set(each.replaces) for key, each in loader.disk_migrations.items()}
    found = compared(set(MigrationRecorder(connection).applied_migrations()), replaced)
    return {kind: sorted(map(".".join, keys)) for kind, keys in found.items()}


def compared(applied, replaced):
    """Compare applied migrations, pairs of app and name, with a release's and what each replaces.

    What a squashed migration replaced counts as known even when the list of it is gone.
    """
    known = set(replaced).union(*replaced.values())
    done = {key for key, old in replaced.items() if key in applied or (old and old <= applied)}
    squashed = {app: found[1] for app, name in done if (found := SQUASHED.match(name))}
    apps = {app for app, _ in replaced}
    missing = set(replaced) - done.union(*(replaced[key] for key in done))
    return {
        "unknown": {
            (app, name)
            for app, name in applied - known
            if app in apps and name[:4] > squashed.get(app, "")
        },
        "missing": missing,
        "too_old": {key for key in missing if replaced[key] & applied},
    }


def end_running_jobs(reason):
    """End the jobs that have no process any more, and free all devices; the numbers of the jobs.

    Those are all that LAVA has given to a device, and with a part of a group the whole group, which
    would wait for it for ever. LAVA's own TestJob.go_state_finished would do more than is true: let
    devices of health checks turn bad, cancel the others of a group, and notify.
    """
    from django.db import transaction
    from django.utils import timezone
    from lava_scheduler_app.models import Device, TestJob

    with transaction.atomic():
        waiting = (TestJob.STATE_SUBMITTED, TestJob.STATE_FINISHED)
        running = TestJob.objects.exclude(state__in=waiting)
        groups = running.filter(target_group__isnull=False).values_list("target_group", flat=True)
        partners = TestJob.objects.filter(
            state=TestJob.STATE_SUBMITTED, target_group__in=list(groups)
        )
        jobs = sorted([*running, *partners], key=lambda job: job.pk)
        now = timezone.now()
        for job in jobs:
            canceled = job.state == TestJob.STATE_CANCELING
            TestJob.objects.filter(pk=job.pk).update(
                state=TestJob.STATE_FINISHED,
                health=TestJob.HEALTH_CANCELED if canceled else TestJob.HEALTH_INCOMPLETE,
                start_time=job.start_time or now,
                end_time=now,
                failure_comment=f"{job.failure_comment or ''} {reason}".strip(),
            )
        Device.objects.exclude(state=Device.STATE_IDLE).update(state=Device.STATE_IDLE)
    return [job.pk for job in jobs]


def devices_to_maintenance(note, but=()):
    """Give no device a job until an administrator says so; the names of those that changed.

    The log of a device says why and what its health was, as with LAVA's command `maintenance`.
    Devices in `but`, and retired ones, stay as they are.
    """
    from django.db import transaction
    from django.utils.html import escape
    from lava_scheduler_app.models import Device

    resting = (Device.HEALTH_MAINTENANCE, Device.HEALTH_RETIRED)
    with transaction.atomic():
        devices = list(Device.objects.exclude(health__in=resting).exclude(hostname__in=but))
        for device in devices:
            device.log_admin_entry(
                None, f"{device.get_health_display()} → Maintenance ({escape(note)})"
            )
            Device.objects.filter(pk=device.pk).update(health=Device.HEALTH_MAINTENANCE)
    return sorted(device.hostname for device in devices)


def move_media(media):
    """Let the rows with paths of media files name those below `media`; how many changed.

    These are LAVA's only absolute paths: where a test case's further results are. A row that would
    grow too long for its column stays: LAVA then shows the case without them.
    """
    from django.db import connection

    media = media.rstrip("/")
    if not PLAIN_IN_YAML.fullmatch(media):
        raise ValueError(f"{media} cannot stand in YAML without quotes")
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE lava_results_app_testcase AS old SET metadata = new.metadata FROM ("
            " SELECT id, regexp_replace(metadata, %s, %s) AS metadata"
            " FROM lava_results_app_testcase WHERE metadata LIKE %s"
            ") AS new WHERE new.id = old.id AND new.metadata <> old.metadata"
            " AND length(new.metadata) <= %s",
            [MEDIA_PATH, rf"\1{media}/job-output/", "%extra: %/job-output/%", METADATA_LENGTH],
        )
        return cursor.rowcount


def take_over_worker(former, name, token):
    """Let a worker have the devices, history and permissions of the worker `former`, which goes.

    A new worker of that name is like the former one. Nothing happens without the former one, or if
    it has that name already.
    """
    from django.contrib.admin.models import LogEntry
    from django.db import transaction
    from lava_scheduler_app.models import Worker

    old = Worker.objects.filter(hostname=former).first()
    if former == name or old is None:
        return
    with transaction.atomic():
        if not Worker.objects.filter(hostname=name).exists():
            old.hostname, old.state = name, Worker.STATE_OFFLINE
            old.save(force_insert=True)
        Worker.objects.filter(hostname=name).update(token=token)
        Worker(hostname=name).permissions.all().delete()
        # where the history of workers is before 2026.10
        logged = LogEntry.objects.filter(content_type__model="worker", object_id=former)
        logged.update(object_id=name, object_repr=name)
        # with hidden ones: a job that asked for the worker would be deleted along with it
        for field in Worker._meta.get_fields(include_hidden=True):
            if field.one_to_many and field.auto_created:
                rows = field.related_model._base_manager.filter(**{field.field.name: former})
                rows.update(**{field.field.name: name})
        Worker.objects.filter(hostname=former).delete()
