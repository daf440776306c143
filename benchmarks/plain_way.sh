#!/bin/sh
# A LAVA instance as an admin would script it without lava-deploy, to compare with.
#
#   plain_way.sh build LOCK                 its virtualenv, of the exact versions in LOCK
#   plain_way.sh make CODE LOCK HOSTNAME    all of it, of LAVA's code as lava-deploy fetched it
#   plain_way.sh remove                     all of it
#
# It takes what setup made ready: Postgres, Apache and its modules. It leaves out what lava-deploy
# does besides, which would take it a second each: the first admin, tokens, a device.
set -eu
cd /

home=/srv/plain
venv=$home/venv
user=plain

as_user() { runuser -u $user -- "$@"; }

build() { # LOCK
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes -r "$1"
}

add_lava() { # CODE
    packages=$(echo "$venv"/lib/python3*/site-packages)
    cp -R "$1/packages/." "$packages"
    "$venv/bin/python" -m compileall -q -j 0 "$packages"/l*ava*
    for program in lava-server lava-worker lava-run; do
        sed "1s|.*|#!$venv/bin/python|" "$1/programs/$program" >"$venv/bin/$program"
        chmod +x "$venv/bin/$program"
    done
}

settings() { # HOSTNAME
    export PATH="$venv/bin:$PATH" SECRET_KEY="$(head -c 40 /dev/urandom | base64)"
    export ALLOWED_HOSTS="$1" INSTANCE_NAME=$user
    database='{default: {ENGINE: django.db.backends.postgresql, NAME: plain, USER: plain}}'
    export LAVA_YAML_SETTINGS_DATABASES="$database"
    export LAVA_SETTINGS_STATIC_ROOT=$home/static LAVA_SETTINGS_MEDIA_ROOT=$home/media/
    export LAVA_SETTINGS_DJANGO_LOGFILE=$home/log/django.log
    export LAVA_SETTINGS_EVENT_SOCKET=ipc://$home/run/out
    export LAVA_SETTINGS_INTERNAL_EVENT_SOCKET=ipc://$home/run/in
    export LAVA_YAML_SETTINGS_EVENT_NOTIFICATION=true LAVA_YAML_SETTINGS_WORKER_AUTO_REGISTER=true
}

start() { # USER NAME PROGRAM OPTIONS...
    owner=$1 name=$2 program=$venv/bin/$3
    shift 3
    start-stop-daemon --start --quiet --background --make-pidfile --pidfile "$home/$name.pid" \
        --chuid "$owner" --chdir / --output "$home/log/$name.log" --startas "$program" -- "$@"
}

start_all() {
    daemon="--level INFO --log-file - --user $user --group $user"
    start $user web gunicorn lava_server.wsgi --worker-class gthread --workers 2 --threads 4 \
        --bind 127.0.0.1:8000
    start $user publisher lava-server manage lava-publisher --host 127.0.0.1 --port 8001 $daemon
    start $user scheduler lava-server manage lava-scheduler --event-url ipc://$home/run/out $daemon
    start root worker lava-worker --name plain --url http://127.0.0.1:8000/ \
        --ws-url http://127.0.0.1:8001/ws/ --worker-dir $home/worker --log-file -
}

open_site() { # HOSTNAME
    cat >/etc/apache2/sites-available/plain.conf <<END
<VirtualHost *:80>
    ServerName $1
    ProxyPreserveHost On
    ProxyPass /static/ !
    ProxyPass /ws/ ws://127.0.0.1:8001/ws/ retry=0
    ProxyPass / http://127.0.0.1:8000/ retry=0
    Alias /static/ $home/static/
    <Directory $home/static>
        Require all granted
    </Directory>
</VirtualHost>
END
    a2ensite --quiet plain
    apache2ctl graceful
}

make() { # CODE LOCK HOSTNAME
    useradd --system --home-dir $home $user
    install -d $home $home/static $home/worker
    install -d -o $user $home/media $home/log $home/run
    build "$2"
    add_lava "$1"
    settings "$3"
    runuser -u postgres -- createuser $user
    runuser -u postgres -- createdb --owner $user $user
    as_user lava-server manage migrate --noinput --fake-initial --verbosity 0
    lava-server manage collectstatic --noinput --verbosity 0
    start_all
    open_site "$3"
}

remove() {
    for name in worker scheduler publisher web; do
        start-stop-daemon --stop --quiet --oknodo --retry TERM/20/KILL/5 --pidfile "$home/$name.pid"
    done
    a2dissite --quiet --purge plain
    apache2ctl graceful
    rm -rf $home /etc/apache2/sites-available/plain.conf
    runuser -u postgres -- dropdb --if-exists --force $user
    runuser -u postgres -- dropuser --if-exists $user
    userdel $user
}

"$@"
