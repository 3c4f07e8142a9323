# The relay as an image. It says nothing about how many copies run: whoever pins it to
# one sets PYRYCODE_RELAY_ASSERT_SINGLE_INSTANCE=true in the same manifest, as fly.toml,
# render.yaml, compose.yaml and deploy/kubernetes.yaml do.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml setup.cfg README.md LICENSE ./
COPY relay_app ./relay_app
# Ready-made packages only: what would need a compiler fails here and not later.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
 && python -m venv /relay \
 && /relay/bin/pip install --no-cache-dir --only-binary :all: /wheel/*.whl

FROM python:3.12-slim
COPY --from=build /relay /relay
ENV PATH=/relay/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYRYCODE_RELAY_LISTEN=0.0.0.0:8080
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# No shell in between: signals have to reach the relay.
CMD ["pyrycode-relay", "serve"]
