#!/bin/bash
# arm64.sh: the edge image built and tested on an amd64 Debian 12 machine, emulated. As root; half an hour.
# qemu is taken from bookworm-backports, because Debian 12's own (7.2) crashes in onnxruntime.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ ! -x /usr/bin/qemu-aarch64-static ] && [ ! -x /usr/bin/qemu-aarch64 ]; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Codename: bookworm' | head -n 1)
  cat > /etc/apt/sources.list.d/bookworm-backports.sources <<SOURCE
Types: deb
URIs: $mirror
Suites: bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCE
  apt-get -qq update
  apt-get -qq install -y --no-install-recommends arch-test
  apt-get -qq install -y --no-install-recommends -t bookworm-backports qemu-user-static
fi

# Containers and virtual machines without systemd have neither the file system nor the entry. F opens the interpreter
# now, so that it is found in any container.
[ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
  qemu=$(command -v qemu-aarch64-static || command -v qemu-aarch64)
  magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  printf '%s' ":qemu-aarch64:M::$magic:$mask:$qemu:F" > /proc/sys/fs/binfmt_misc/register
fi

exec make test-image VARIANT=edge
