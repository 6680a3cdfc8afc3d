"""`python -m handful.http` prints the OpenAPI document of the service, which is kept as docs/openapi.json."""

import json
import sys

from handful.http.app import routes

if __name__ == "__main__":
    sys.stdout.write(json.dumps(routes().openapi(), indent=1, sort_keys=True) + "\n")
