#!/bin/bash
# debian.sh ARCH OUT.tar: a base image's root file system from Debian 12's packages (Python 3.11), for machines that
# reach a Debian mirror but no container registry. Needs root and mmdebstrap; amd64 takes half a minute. Another
# architecture needs arch-test and qemu-user-static of bookworm-backports (version 10: 7.2 crashes in onnxruntime).
set -euo pipefail
arch=$1 out=$2
if [ -d /dev/shm ]; then export TMPDIR=/dev/shm; fi
mmdebstrap --quiet --variant=minbase --mode=root --format=tar --arch="$arch" \
  --include=ca-certificates,python3,python3-venv,python3-pip \
  --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=usr-is-merged \
  --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='rm -f "$1"/usr/lib/python3.11/EXTERNALLY-MANAGED "$1"/var/cache/apt/*.bin' \
  --customize-hook='ln -s /usr/bin/python3 "$1"/usr/local/bin/python' \
  bookworm "$out"
