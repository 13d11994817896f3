#!/bin/bash
# Real Debian VM disks for the demo, the tests and the benchmarks.
#
#   tools/vm-images.sh DIR [base|web|db]...      default: base
#
# Leaves per image DIR/NAME.img (3 GiB raw ext4, sparse), DIR/NAME.vmlinuz and DIR/NAME.initrd. What is there already
# is kept; a root or disk appears under its name only when it is whole, so an interrupted run is simply repeated.
# Needs root, debootstrap and e2fsprogs (`cargo x setup`). Uses the Debian mirror this machine uses.
#
# A root shell without login waits on the serial console: the guest is for tests, never for a network.
set -euo pipefail

RELEASE=bookworm
BASE_PACKAGES=linux-image-cloud-amd64,systemd-sysv,udev,ifupdown,iproute2,fio,openssh-server,xfsprogs
declare -A EXTRA=([base]="" [web]="nginx python3 nodejs" [db]="postgresql redis-server")

say() { printf 'vm-images: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }

# Runs a step with its output in a log; shows the log's end when the step fails.
logged() { # LOG COMMAND...
  local log=$1; shift
  "$@" >"$log" 2>&1 || { tail -15 "$log" >&2; die "failed: $1 (whole log: $log)"; }
}

# The first mirror named in /etc/apt that carries Debian itself, in either notation.
mirror() {
  find /etc/apt -name '*.sources' -o -name '*.list' | sort | xargs -r cat |
    awk '$1 == "URIs:" { print $2 } $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; break } }' |
    awk '/\/debian\/?$/ && !found { print; found = 1 }'
}

# A root shell on the serial console, and a file system check at every boot.
prepare_guest() { # ROOT NAME
  echo "$2" >"$1/etc/hostname"
  echo '/dev/vda / ext4 defaults,errors=remount-ro 0 1' >"$1/etc/fstab"
  cat >"$1/etc/systemd/system/console-shell.service" <<'UNIT'
[Unit]
Description=Root shell on the serial console
Conflicts=serial-getty@ttyS0.service

[Service]
ExecStart=/bin/sh -c 'echo console-shell-ready; exec /bin/sh -i'
StandardInput=tty
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
TTYReset=yes
Environment=HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
Restart=always
# An interactive shell ignores SIGTERM.
KillSignal=SIGHUP
TimeoutStopSec=5

[Install]
WantedBy=multi-user.target
UNIT
  ln -sf /dev/null "$1/etc/systemd/system/serial-getty@ttyS0.service"
  mkdir -p "$1/etc/systemd/system/multi-user.target.wants"
  ln -sf ../console-shell.service "$1/etc/systemd/system/multi-user.target.wants/console-shell.service"
}

# True when DIR/root/NAME is there and was made with the packages asked for today.
is_made() { # NAME
  [ -d "$D/root/$1" ] && [ "$(cat "$D/root/$1.packages" 2>/dev/null)" = "$BASE_PACKAGES ${EXTRA[$1]}" ]
}

# Gives a whole root its name, and says with which packages it was made.
name_root() { # NAME
  rm -rf "$D/root/$1"
  mv "$D/root/$1.part" "$D/root/$1"
  echo "$BASE_PACKAGES ${EXTRA[$1]}" >"$D/root/$1.packages"
}

# DIR/root/base, whole or not there.
make_base_root() {
  local root=$D/root/base from
  is_made base && return
  from=$(mirror)
  [ -n "$from" ] || die "no Debian mirror in /etc/apt: nothing to install a guest from"
  rm -rf "$root.part"
  say "installing Debian $RELEASE (about a minute)"
  logged "$D/base.log" debootstrap --foreign --variant=minbase --include=$BASE_PACKAGES $RELEASE "$root.part" "$from"
  # dpkg syncs every file it unpacks. Here a half-made root is thrown away.
  mkdir -p "$root.part/etc/dpkg/dpkg.cfg.d"
  echo force-unsafe-io >"$root.part/etc/dpkg/dpkg.cfg.d/unsafe-io"
  logged "$D/base.log" chroot "$root.part" /debootstrap/debootstrap --second-stage
  rm -f "$root.part"/var/cache/apt/archives/*.deb
  name_root base
}

# DIR/root/NAME: the base root with more packages.
make_root() { # NAME
  make_base_root
  local root=$D/root/$1
  is_made "$1" && return
  rm -rf "$root.part"
  cp -a "$D/root/base" "$root.part"
  cp -a /etc/apt/apt.conf.d/. "$root.part/etc/apt/apt.conf.d/"
  cp -a /etc/apt/sources.list.d/. "$root.part/etc/apt/sources.list.d/"
  [ ! -f /etc/apt/sources.list ] || cp /etc/apt/sources.list "$root.part/etc/apt/"
  [ ! -f /etc/resolv.conf ] || cp -L /etc/resolv.conf "$root.part/etc/"
  say "installing ${EXTRA[$1]} for $1"
  logged "$D/$1.log" chroot "$root.part" sh -c "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ${EXTRA[$1]} && apt-get clean"
  name_root "$1"
}

# DIR/NAME.img and its kernel: packed aside, then named; the disk comes last and stands for all three.
make_disk() { # NAME
  local name=$1 part=$D/$1.img.part kernel
  prepare_guest "$D/root/$name" "$name"
  kernel=$(basename "$(ls "$D/root/$name"/boot/vmlinuz-* | head -n 1)")
  cp "$D/root/$name/boot/$kernel" "$D/$name.vmlinuz"
  cp "$D/root/$name/boot/${kernel/vmlinuz/initrd.img}" "$D/$name.initrd"
  rm -f "$part"
  truncate -s 3G "$part"
  logged "$D/$name.mkfs.log" mkfs.ext4 -q -L root -d "$D/root/$name" "$part"
  sync "$part"
  mv "$part" "$D/$name.img"
}

D=${1:?usage: vm-images.sh DIR [base|web|db]...}
shift
[ $# -gt 0 ] || set -- base
for name in "$@"; do [ -n "${EXTRA[$name]+known}" ] || die "no image is called $name (base, web, db)"; done
[ "$(id -u)" = 0 ] || die "needs root: debootstrap makes devices and owners"
mkdir -p "$D/root"
for name in "$@"; do
  # A disk packed by an older version of this script is packed anew; its root is kept.
  [ -f "$D/$name.img" ] && [ ! "$0" -nt "$D/$name.img" ] && continue
  make_root "$name"
  make_disk "$name"
  say "$name: $(du -h --apparent-size "$D/$name.img" | cut -f1) disk, $(du -h "$D/$name.img" | cut -f1) of data"
done
