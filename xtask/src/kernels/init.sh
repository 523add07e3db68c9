#!/bin/busybox sh
# The first process on a kernel under test: mounts, loads modules, runs the suites, powers off. What it prints goes to
# the serial console; lines that begin with "weft-kernels:" are read by `cargo xtask test kernels`.
export PATH=/bin:/busybox HOME=/tmp
/bin/busybox --install -s /busybox
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tmpfs none /run
mount -t tmpfs none /tmp
while read -r module; do
    insmod "/modules/$module"
done < /modules/order
ip link set lo up
# An emulated CPU takes its time: what waits for it isn't lost.
echo 100000 > /proc/sys/net/core/netdev_max_backlog

suite() {
    name=$1
    shift
    echo "weft-kernels: begin $name"
    "$@"
    echo "weft-kernels: end $name $? at $(cut -d ' ' -f 1 /proc/uptime) s"
}

# What failed scenarios left goes with this machine; their hosts' last words stay on the console.
evidence() {
    find / \( -path /proc -o -path /sys \) -prune -o -type f -path '*/scenario-failures/*' \
        \( -name '*.log' -o -name '*.txt' \) -print | while read -r file; do
        echo "weft-kernels: evidence ${file##*/scenario-failures/}"
        tail -n 60 "$file"
        echo
    done
}

export WEFTD_BIN=/bin/weftd WEFT_BIN=/bin/weft WEFT_TEST_TIMEOUT_FACTOR=10 RUST_BACKTRACE=0 WEFT_POLICY_CASES=500
for name in $(echo "$SUITES" | tr , " "); do
    case $name in
        bpf) suite bpf bpf --test-threads 1 --show-output ;;
        contract) suite contract contract --test-threads 1 ;;
        # shellcheck disable=SC2046
        net) suite net net --test-threads 3 --exact $(cat /scenarios) ;;
    esac
done
evidence
echo "weft-kernels: done"
poweroff -f
