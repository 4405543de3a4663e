#!/bin/sh
# The first process of the virtual machine of `cargo xtask vm`: arranges control groups as `kind` says,
# runs the tests of isolation, says how they ended and turns the machine off.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

if [ "$1" != again ]; then
    # From the kernel's own file system to an ordinary one, as every machine does.
    mkdir -p /dev /proc /sys /new
    mount -t proc -o nosuid,nodev,noexec proc /proc
    mount -t sysfs -o nosuid,nodev,noexec sys /sys
    mount -t devtmpfs -o nosuid dev /dev
    mount -t tmpfs -o size=80%,mode=755 root /new
    for it in /*; do
        case $it in
        /new) ;;
        /dev | /proc | /sys) mkdir "/new$it" ;;
        *) cp -a "$it" /new/ ;;
        esac
    done
    # It takes what is mounted along.
    exec switch_root /new /init again
fi

# As every machine has them; the kernel makes none.
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mkdir /dev/pts /dev/shm
mount -t devpts -o nosuid,noexec devpts /dev/pts
mount -t tmpfs -o nosuid,nodev shm /dev/shm
mount -t tmpfs -o nosuid,nodev,mode=1777 tmp /tmp
mount -t tmpfs -o nosuid,nodev,mode=755 run /run

v1() {
    mount -t tmpfs -o mode=755 groups /sys/fs/cgroup
    for it in cpu,cpuacct memory pids freezer; do
        mkdir "/sys/fs/cgroup/$it"
        mount -t cgroup -o "$it" cgroup "/sys/fs/cgroup/$it"
    done
}

# Without root, in a group that was given to the user and looks to it like the first one.
given() {
    mkdir /sys/fs/cgroup/given
    echo '+cpu +memory +pids' > /sys/fs/cgroup/cgroup.subtree_control
    # Who writes this enters.
    echo 0 > /sys/fs/cgroup/given/cgroup.procs
    exec unshare --cgroup --mount sh -c '
        umount /sys/fs/cgroup
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
        cd /sys/fs/cgroup
        mkdir tests
        chown 1000 . cgroup.procs cgroup.subtree_control cgroup.threads tests tests/cgroup.procs
        echo 0 > tests/cgroup.procs
        cd /
        exec setpriv --reuid=1000 --regid=1000 --clear-groups "$@"' sh "$@"
}

tests="/tests/isolation --color=never"
case $kind in
v2)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    $tests
    ;;
v2-user)
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    (given $tests)
    ;;
v1)
    v1
    $tests
    ;;
hybrid)
    v1
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
    $tests
    ;;
user)
    setpriv --reuid=1000 --regid=1000 --clear-groups $tests
    ;;
esac
echo "machine: the tests ended with $?"
echo o > /proc/sysrq-trigger
sleep 60
