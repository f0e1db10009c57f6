"""`python -m embedded.cli.env`: exports for the local stack, for `eval "$(make -s env)"`."""

from __future__ import annotations

import os
import shlex
import sys

from embedded import plugins
from embedded.home import LocalHome, NoCluster, NotOurs


def main() -> int:
    home = LocalHome.default()
    try:
        home.check_owner()
        environment = plugins.pulumi_environment(home, home.cluster())
    except NotOurs as error:
        print(error, file=sys.stderr)
        return 1
    except NoCluster as error:
        print(f"{error}: run `make up` first", file=sys.stderr)
        return 1
    # An exported passphrase would win over the home's own.
    print("unset PULUMI_CONFIG_PASSPHRASE")
    for name, value in sorted(environment.items()):
        if os.environ.get(name) != value:
            print(f"export {name}={shlex.quote(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
