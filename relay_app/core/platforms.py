"""The hosting platforms, as data: what each sets, and how to keep it at one copy.

A platform is a row of ``PLATFORMS``, a process manager a row of ``MANAGERS``. The
guard takes the first row of ``PLATFORMS`` that is here as the platform, and looks at
the ordinals and counts of both tables. A reader adds a platform by adding a row, its
section in docs/operations.md and its environments in the tests.

Source: docs/operations.md "Platforms".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from relay_app.core.policy import Network

_NUMBER = r"([0-9]{1,9})"

TRUSTED_PROXIES = "PYRYCODE_RELAY_TRUSTED_PROXIES"
"""The setting that the words about proxies are about."""


@dataclass(frozen=True, slots=True)
class Ordinal:
    """A variable that numbers the copies.

    Args:
        variable: Its name.
        first: The number of the first copy, which proves nothing.
        shape: What a well-formed value matches in full. Its one group is the number;
            a well-formed value without it numbers nothing.
        needs: Variables without which it is a stray of something else and proves
            nothing.
        twin: A variable that must say the same wherever it is set.
    """

    variable: str
    first: int = 0
    shape: str = _NUMBER
    needs: tuple[str, ...] = ()
    twin: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """A variable that says how many copies there are; ``needs`` as for an ordinal."""

    variable: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proxy:
    """What stands in front of every copy and hides the clients' addresses.

    Args:
        what: Its name, as it follows "behind".
        source: Where all of this is known from.
        networks: From which operators have seen it reach a copy, though the platform
            does not promise it; empty where nothing is known that holds for everybody.
        variable: A variable in which the platform itself lists its addresses.
        whose: What to name where neither says it.
        also: Hops beside it that stand behind the client in ``X-Forwarded-For`` and
            would pass for the client if they were not named.
    """

    what: str
    source: str
    networks: tuple[str, ...] = ()
    variable: str = ""
    whose: str = "its network, which is not published"
    also: str = ""

    @property
    def to_set(self) -> str:
        """What to set so that clients are told apart, as a command to the reader."""
        if self.variable:
            text = f"set {TRUSTED_PROXIES} to the value of {self.variable}"
        elif self.networks:
            text = (
                f"set {TRUSTED_PROXIES}={','.join(self.networks)} (seen there, not "
                "published: compare it with peer in connection.opened)"
            )
        else:
            text = (
                f"set {TRUSTED_PROXIES} to {self.whose}: look at peer in "
                "connection.opened"
            )
        return f"{text}; also name {self.also}" if self.also else text

    def is_all(self, trusted: Iterable[Network]) -> bool:
        """Tell whether nothing is trusted but what is known as its own networks."""
        own = [ipaddress.ip_network(network) for network in self.networks]
        return all(any(net.overlaps(each) for net in own) for each in trusted)


@dataclass(frozen=True, slots=True)
class Platform:
    """One platform that can run more than one copy of a service.

    Args:
        name: As its makers write it.
        pin: What keeps it at one.
        scale: What would break that.
        presence: Variables that are all set there, and not empty.
        shape: What the first of them has to match in full to count; empty for anything.
        ordinal: What numbers the copies, where something does.
        count: What says how many there are, where something does.
        not_serving: Variables and the values, as patterns, that mark a process of
            the service which serves nobody: a one-off shell, a release step.
        instance: The variable that tells its copies apart; empty for none.
        revision: The variable that tells its deploys apart; empty for none.
        overlap: How a deploy runs old and new side by side; empty where it does not.
        off: What switches that off; empty where nothing does or needs to.
        proxy: What stands in front of a copy there; ``None`` where nothing does unless
            the operator puts it there.
        example: What it sets for a lone copy, as far as the guard looks at it.
    """

    name: str
    pin: str
    scale: str
    presence: tuple[str, ...] = ()
    shape: str = ""
    ordinal: Ordinal | None = None
    count: Count | None = None
    not_serving: tuple[tuple[str, str], ...] = ()
    instance: str = ""
    revision: str = ""
    overlap: str = ""
    off: str = ""
    proxy: Proxy | None = None
    example: tuple[tuple[str, str], ...] = ()

    def is_here(self, environ: Mapping[str, str]) -> bool:
        """Tell whether the environment is this platform's."""
        if not _all_set(environ, self.presence):
            return False
        first = environ[self.presence[0]]
        return not self.shape or re.fullmatch(self.shape, first) is not None

    @property
    def in_a_deploy(self) -> str:
        """What a deploy does, and what to switch off, as one clause."""
        if not self.overlap:
            return "the old copy is stopped before the new one starts"
        return f"{self.overlap}; {self.off or 'nothing switches that off'}"


_DYNO = r"[A-Za-z][A-Za-z0-9_-]*\.[0-9]{1,9}"
_FIR_DYNO = r"[a-z][a-z0-9_]*(-[a-z0-9]+)+"
_ONE_OFF = ("DYNO", r"(run|release|scheduler)\..*")
_WEB = r"(?:web\.([0-9]{1,9})|(?!web\.).*)"
"""A dyno of another type than web is well formed, and gets no traffic to share."""

_GOOGLE_FRONT_END = Proxy(
    "Google's front end",
    source="App Engine's documentation, Request headers: a list of hops, without addresses",
)

PLATFORMS: tuple[Platform, ...] = (
    Platform(
        name="Fly",
        presence=("FLY_APP_NAME",),
        pin="fly scale count 1 (and fly deploy --ha=false for the first deploy)",
        scale="fly scale count 2",
        overlap="the canary and bluegreen strategies run two for a while",
        off='stay with strategy = "rolling", which replaces the one machine in place',
        not_serving=(("RELEASE_COMMAND", "1"),),
        instance="FLY_MACHINE_ID",
        revision="FLY_MACHINE_VERSION",
        proxy=Proxy(
            "Fly's proxy",
            networks=("172.16.0.0/12",),
            also="the app's own addresses, which it appends (fly ips list)",
            source="Fly's documentation, Request headers, for what it appends; its own "
            "address as several operators have seen it",
        ),
        example=(("FLY_APP_NAME", "relay"), ("FLY_MACHINE_ID", "e2865013b04986")),
    ),
    Platform(
        name="Heroku Fir",
        presence=("DYNO",),
        shape=_FIR_DYNO,
        pin="heroku ps:scale web=1",
        scale="heroku ps:scale web=2",
        overlap="a release may start the new dyno before it stops the old one",
        off="heroku ps:scale web=0 before the deploy, and web=1 after it",
        instance="DYNO",
        revision="HEROKU_RELEASE_VERSION",
        proxy=Proxy(
            "Heroku's router",
            source="Heroku's documentation, HTTP Routing; nothing found about addresses",
        ),
        example=(("DYNO", "web-76c498dd9b-m6v2q"),),
    ),
    Platform(
        name="Heroku",
        presence=("DYNO", "HEROKU_APP_ID"),
        shape=_DYNO,
        pin="heroku ps:scale web=1",
        scale="heroku ps:scale web=2",
        overlap="preboot runs the old and the new dyno side by side",
        off="heroku features:disable preboot",
        ordinal=Ordinal("DYNO", first=1, shape=_WEB),
        not_serving=(_ONE_OFF,),
        instance="HEROKU_DYNO_ID",
        revision="HEROKU_RELEASE_VERSION",
        proxy=Proxy(
            "Heroku's router",
            networks=("10.0.0.0/8",),
            source="Heroku's documentation, HTTP Routing, for the router; its address "
            "as an operator has seen it",
        ),
        example=(("DYNO", "web.1"), ("HEROKU_APP_ID", "01234567")),
    ),
    Platform(
        name="Heroku or Dokku",
        presence=("DYNO",),
        shape=_DYNO,
        pin="heroku ps:scale web=1, or dokku ps:scale APP web=1",
        scale="heroku ps:scale web=2, or dokku ps:scale APP web=2",
        overlap="Heroku's preboot and Dokku's zero-downtime deploy run old and new side by side",
        off="heroku features:disable preboot, or dokku checks:disable APP",
        ordinal=Ordinal("DYNO", first=1, shape=_WEB),
        not_serving=(_ONE_OFF,),
        instance="DYNO",
        proxy=Proxy(
            "Heroku's router or Dokku's nginx",
            networks=("10.0.0.0/8", "172.17.0.0/16"),
            source="as for Heroku; the second is the bridge that Docker makes by itself",
        ),
        example=(("DYNO", "web.1"), ("WEB_CONCURRENCY", "2")),
    ),
    Platform(
        name="Render",
        presence=("RENDER",),
        pin="numInstances: 1 without scaling: in render.yaml, and a disk, which forbids more",
        scale="numInstances: 2, or the slider on the service's Scaling page",
        overlap="without a disk the old instance serves on until the new one is healthy",
        off="attach a disk, however small: then the old one stops first",
        instance="RENDER_INSTANCE_ID",
        revision="RENDER_GIT_COMMIT",
        proxy=Proxy(
            "Render's proxy",
            networks=("10.0.0.0/8",),
            also="Cloudflare's networks, which Cloudflare publishes, since it comes first",
            source="an operator's account of a move from Heroku, and requests that "
            "others have recorded",
        ),
        example=(
            ("RENDER", "true"),
            ("RENDER_INSTANCE_ID", "srv-relay-abcde"),
            ("WEB_CONCURRENCY", "4"),
        ),
    ),
    Platform(
        name="Railway",
        presence=("RAILWAY_ENVIRONMENT_ID",),
        pin="numReplicas: 1 in one region in railway.json, and a volume, which forbids more",
        scale="numReplicas: 2, or a second region",
        overlap="without a volume the old deployment runs on until the new one is healthy",
        off="attach a volume, however small: then the old one stops first",
        instance="RAILWAY_REPLICA_ID",
        revision="RAILWAY_DEPLOYMENT_ID",
        proxy=Proxy(
            "Railway's edge proxy",
            networks=("100.64.0.0/10",),
            source="Railway's documentation, Specs & Limits, for the proxy; its address "
            "as several operators have seen it",
        ),
        example=(("RAILWAY_ENVIRONMENT_ID", "e"), ("RAILWAY_REPLICA_ID", "r")),
    ),
    Platform(
        name="Koyeb",
        presence=("KOYEB_APP_NAME",),
        pin="koyeb services update APP/SERVICE --scale 1, and one region",
        scale="koyeb services update APP/SERVICE --scale 2, or a second region",
        overlap="the rolling and blue-green strategies run old and new side by side",
        off="koyeb services update APP/SERVICE --deployment-strategy immediate",
        ordinal=Ordinal("KOYEB_REPLICA_INDEX"),
        instance="KOYEB_INSTANCE_ID",
        revision="KOYEB_REGIONAL_DEPLOYMENT_ID",
        proxy=Proxy("Koyeb's edge", source="nothing found about addresses"),
        example=(("KOYEB_APP_NAME", "relay"), ("KOYEB_REPLICA_INDEX", "0")),
    ),
    Platform(
        name="Scalingo",
        presence=("SCALINGO_APPLICATION_ID",),
        pin="scalingo --app APP scale web:1, and autoscalers-disable web",
        scale="scalingo --app APP scale web:2",
        overlap="a deploy or a restart starts the new container before it stops the old one",
        off="scalingo --app APP scale web:0 before the deploy, and web:1 after it",
        ordinal=Ordinal(
            "CONTAINER",
            first=1,
            shape=r"(?:web-([0-9]{1,9})|(?!web-).+-[0-9]{1,9})",
            needs=("SCALINGO_APPLICATION_ID",),
        ),
        not_serving=(("CONTAINER", r"one-off-[0-9]+"),),
        instance="CONTAINER",
        revision="CONTAINER_VERSION",
        proxy=Proxy("Scalingo's router", source="nothing found about addresses"),
        example=(("SCALINGO_APPLICATION_ID", "a"), ("CONTAINER", "web-1")),
    ),
    Platform(
        name="Clever Cloud",
        presence=("CC_PRETTY_INSTANCE_NAME",),
        pin="clever scale --instances 1",
        scale="clever scale --instances 2, or --max-instances above 1",
        overlap="a deploy starts the new instance before it stops the old one",
        off="clever config update --disable-zero-downtime, and a flavor above nano",
        ordinal=Ordinal("INSTANCE_NUMBER", needs=("APP_ID", "INSTANCE_ID")),
        not_serving=(("INSTANCE_TYPE", "build"),),
        instance="INSTANCE_ID",
        revision="CC_COMMIT_ID",
        proxy=Proxy(
            "Clever Cloud's reverse proxy",
            variable="CC_REVERSE_PROXY_IPS",
            source="Clever Cloud's documentation, Environment variables reference",
        ),
        example=(
            ("CC_PRETTY_INSTANCE_NAME", "Zealous Relay"),
            ("APP_ID", "app_a"),
            ("INSTANCE_ID", "i"),
            ("INSTANCE_NUMBER", "0"),
            ("INSTANCE_TYPE", "production"),
        ),
    ),
    Platform(
        name="App Engine",
        presence=("GAE_ENV",),
        pin="manual_scaling with instances: 1 in app.yaml",
        scale="automatic_scaling, or instances: 2",
        overlap="the old version runs on beside the new one until it is stopped",
        off="gcloud app versions stop the old one before the deploy",
        instance="GAE_INSTANCE",
        revision="GAE_VERSION",
        proxy=_GOOGLE_FRONT_END,
        example=(("GAE_ENV", "standard"), ("GAE_INSTANCE", "i"), ("GAE_VERSION", "v")),
    ),
    Platform(
        name="App Engine flexible",
        presence=("GAE_INSTANCE", "GAE_SERVICE"),
        pin="manual_scaling with instances: 1 in app.yaml",
        scale="automatic_scaling, or instances: 2",
        overlap="the old version runs on beside the new one until it is stopped",
        off="gcloud app versions stop the old one before the deploy",
        instance="GAE_INSTANCE",
        revision="GAE_VERSION",
        proxy=_GOOGLE_FRONT_END,
        example=(("GAE_INSTANCE", "aef-default-v-1"), ("GAE_SERVICE", "default")),
    ),
    Platform(
        name="Cloud Run or Knative",
        presence=("K_SERVICE", "K_REVISION"),
        pin="gcloud run services update SERVICE --scaling=1; on Knative min-scale and max-scale 1",
        scale="gcloud run services update SERVICE --scaling=2, or --max above 1",
        overlap="old and new revision run side by side until the traffic has moved",
        count=Count("CLOUD_RUN_TASK_COUNT"),
        revision="K_REVISION",
        proxy=Proxy(
            "Google's front end",
            networks=("169.254.0.0/16",),
            source="the peer in logs that operators of Cloud Run show; on Knative, where "
            "the ingress is the cluster's own, nothing holds for everybody",
        ),
        example=(("K_SERVICE", "relay"), ("K_REVISION", "relay-00001-abc")),
    ),
    Platform(
        name="App Service",
        presence=("WEBSITE_SITE_NAME",),
        pin="az appservice plan update --name PLAN --resource-group GROUP --number-of-workers 1",
        scale="az appservice plan update --name PLAN --resource-group GROUP --number-of-workers 2",
        overlap="the new container starts before the old one is stopped",
        off="az webapp stop before the deploy and az webapp start after it; no slots",
        instance="WEBSITE_INSTANCE_ID",
        revision="WEBSITE_DEPLOYMENT_ID",
        proxy=Proxy(
            "App Service's front end",
            networks=("169.254.0.0/16",),
            source="the peer in logs that operators of Linux containers show",
        ),
        example=(("WEBSITE_SITE_NAME", "relay"), ("WEBSITE_INSTANCE_ID", "i")),
    ),
    Platform(
        name="Container Apps",
        presence=("CONTAINER_APP_NAME",),
        pin="az containerapp update --name APP --resource-group GROUP --min-replicas 1 --max-replicas 1",
        scale="az containerapp update --name APP --resource-group GROUP --max-replicas 2",
        overlap="in single revision mode the old revision serves on until the new one is ready",
        off="nothing in that mode does; in multiple revision mode deactivate the old one first",
        instance="CONTAINER_APP_REPLICA_NAME",
        revision="CONTAINER_APP_REVISION",
        proxy=Proxy(
            "the environment's ingress",
            networks=("100.100.0.0/16",),
            source="Azure's documentation, Virtual network configuration: ranges that a "
            "workload profiles environment reserves; operators have seen the ingress "
            "in them",
        ),
        example=(
            ("CONTAINER_APP_NAME", "relay"),
            ("CONTAINER_APP_REPLICA_NAME", "relay--abc-5d5"),
        ),
    ),
    Platform(
        name="ECS",
        presence=("ECS_CONTAINER_METADATA_URI_V4",),
        pin="aws ecs update-service --cluster CLUSTER --service SERVICE --desired-count 1",
        scale="aws ecs update-service --cluster CLUSTER --service SERVICE --desired-count 2",
        overlap="a rolling update starts the new task before it stops the old one",
        off="minimumHealthyPercent=0 and maximumPercent=100, and no zone rebalancing",
        instance="ECS_CONTAINER_METADATA_URI_V4",
        proxy=Proxy(
            "a load balancer",
            whose="the networks of its subnets",
            source="Elastic Load Balancing's documentation, X-Forwarded headers: a "
            "target sees the balancer's own address",
        ),
        example=(
            ("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/0123-4567"),
        ),
    ),
    Platform(
        name="Cloud Foundry",
        presence=("VCAP_APPLICATION",),
        pin="cf scale APP -i 1",
        scale="cf scale APP -i 2",
        overlap="the rolling and canary strategies run old and new side by side",
        off="cf push without --strategy",
        ordinal=Ordinal(
            "CF_INSTANCE_INDEX", needs=("VCAP_APPLICATION",), twin="INSTANCE_INDEX"
        ),
        instance="CF_INSTANCE_GUID",
        proxy=Proxy(
            "the Gorouter",
            whose="its network, which the platform's operator knows",
            also="the load balancer before it, which it appends",
            source="Cloud Foundry's documentation, HTTP routing",
        ),
        example=(
            ("VCAP_APPLICATION", "{}"),
            ("CF_INSTANCE_INDEX", "0"),
            ("INSTANCE_INDEX", "0"),
        ),
    ),
    Platform(
        name="Nomad",
        presence=("NOMAD_ALLOC_ID",),
        pin="count = 1 in the group of the job",
        scale="nomad job scale JOB GROUP 2",
        overlap="a canary runs beside the old allocation",
        off="canary = 0 in the update block",
        ordinal=Ordinal("NOMAD_ALLOC_INDEX"),
        instance="NOMAD_ALLOC_ID",
        example=(("NOMAD_ALLOC_ID", "a"), ("NOMAD_ALLOC_INDEX", "0")),
    ),
    Platform(
        name="Kubernetes",
        presence=("KUBERNETES_SERVICE_HOST",),
        pin="replicas: 1 in the Deployment, and no HorizontalPodAutoscaler",
        scale="kubectl scale deployment/relay --replicas=2",
        overlap="a rolling update starts the new pod before it stops the old one",
        off="strategy: {type: Recreate}",
        instance="HOSTNAME",
        proxy=Proxy(
            "an ingress",
            whose="the network of its controller's pods",
            source="the cluster is its owner's, and so are its networks",
        ),
        example=(
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
            ("HOSTNAME", "relay-2-6d4b75cb6d-x2x9z"),
        ),
    ),
)

MANAGERS: tuple[Platform, ...] = (
    Platform(
        name="PM2",
        presence=("pm_id",),
        pin='instances: 1 and exec_mode: "fork" in the ecosystem file',
        scale="pm2 scale APP 2",
        overlap="in cluster mode pm2 reload starts the new process before it stops the old one",
        off='exec_mode: "fork", and pm2 restart',
        ordinal=Ordinal("NODE_APP_INSTANCE", needs=("pm_id",)),
        count=Count("instances", needs=("pm_id",)),
        instance="pm_id",
        example=(("pm_id", "0"), ("NODE_APP_INSTANCE", "0"), ("instances", "1")),
    ),
)
"""Managers of processes on one host. They need no assertion: there the lock sees a
second copy. Those that only give a process a name are in ``core.neighbours``."""

ROWS = PLATFORMS + MANAGERS


def detect(environ: Mapping[str, str]) -> Platform | None:
    """Find the platform that an environment belongs to; ``None`` for none known."""
    return next((row for row in PLATFORMS if row.is_here(environ)), None)


def not_serving(environ: Mapping[str, str]) -> str | None:
    """Tell by which variable a platform marks this process as not serving.

    Returns: The variable's name, or ``None`` when the process may serve.
    """
    for row in PLATFORMS:
        for variable, values in row.not_serving:
            if _all_set(environ, row.presence) and re.fullmatch(
                values, environ.get(variable, "")
            ):
                return variable
    return None


def ordinals(environ: Mapping[str, str]) -> Iterator[tuple[Platform, Ordinal, int]]:
    """Find every number that this copy has been given and that means something.

    Malformed and contradictory values are passed over; ``malformed`` names them.

    Returns: The row, what numbers the copies there, and the number of this one.
    """
    seen = set()
    # Two rows may know one variable; then the platform that is here speaks.
    for row in sorted(ROWS, key=lambda row: not row.is_here(environ)):
        ordinal = row.ordinal
        if ordinal is None or ordinal.variable in seen:
            continue
        number = _number(ordinal, environ)
        if number is not None and not _contradicted(ordinal, environ):
            seen.add(ordinal.variable)
            yield row, ordinal, number


def counts(environ: Mapping[str, str]) -> Iterator[tuple[Platform, Count, int]]:
    """Find every count of copies; the rest as for ``ordinals``."""
    for row in ROWS:
        count = row.count
        if count is not None and _all_set(environ, count.needs):
            text = environ.get(count.variable, "")
            if re.fullmatch(_NUMBER, text) and int(text) >= 1:
                yield row, count, int(text)


def malformed(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Name the platforms' variables whose values cannot be what they should be.

    Returns: Names, each once, sorted. They are treated as if they were not set.
    """
    found = set()
    for row in ROWS:
        first = row.presence[0]
        if row.shape and environ.get(first) and not _known_shape(first, environ):
            found.add(first)
        ordinal, count = row.ordinal, row.count
        if ordinal is not None and _all_set(
            environ, (ordinal.variable, *ordinal.needs)
        ):
            text = environ[ordinal.variable]
            if not re.fullmatch(ordinal.shape, text):
                found.add(ordinal.variable)
            elif _contradicted(ordinal, environ):
                found |= {ordinal.variable, ordinal.twin}
        if count is not None and _all_set(environ, (count.variable, *count.needs)):
            text = environ[count.variable]
            if not re.fullmatch(_NUMBER, text) or int(text) < 1:
                found.add(count.variable)
    return tuple(sorted(found))


def _all_set(environ: Mapping[str, str], variables: tuple[str, ...]) -> bool:
    return all(environ.get(variable) for variable in variables)


def _number(ordinal: Ordinal, environ: Mapping[str, str]) -> int | None:
    if not _all_set(environ, ordinal.needs):
        return None
    found = re.fullmatch(ordinal.shape, environ.get(ordinal.variable, ""))
    return int(found[1]) if found and found[1] else None


def _contradicted(ordinal: Ordinal, environ: Mapping[str, str]) -> bool:
    twin = environ.get(ordinal.twin, "")
    return bool(twin) and twin != environ[ordinal.variable]


def _known_shape(variable: str, environ: Mapping[str, str]) -> bool:
    return not_serving(environ) == variable or any(
        row.shape and re.fullmatch(row.shape, environ[variable])
        for row in ROWS
        if row.presence[0] == variable
    )
