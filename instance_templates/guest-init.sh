#!/bin/busybox sh
# The first process of the smoke job's guest: a root shell on the console, for LAVA to type into.

/bin/busybox mkdir -p /proc /sys /dev /tmp /root /etc /sbin /usr/bin /usr/sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root PS1='lava-guest# ' TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd
echo 'root:x:0:' > /etc/group
hostname lava-guest

# LAVA takes a kernel for booted when it reads "Linux version N", which `quiet` hides.
cat /proc/version

# A trial of the host's virtualisation: that we came this far is the answer. QEMU ends at a reboot.
grep -q lava_deploy_trial /proc/cmdline && reboot -f

cd /root
while :; do
    setsid cttyhack sh -i
done
