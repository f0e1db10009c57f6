#!/bin/sh
# As the image does: `curl` is put before arguments that begin with an option or name no program.
if [ "${1#-}" != "$1" ] || ! command -v "$1" >/dev/null 2>&1; then
  set -- curl "$@"
fi
exec "$@"
