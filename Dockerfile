# bridge in a container: no root, nothing writable but the state volume and /tmp.
#   docker build --tag bridge .
#   docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
#     --publish 127.0.0.1:8580:8580 --volume bridge-state:/var/lib/bridge bridge
# tests/integration/test_image.py runs these steps without an engine; it reads them from this file.

FROM python:3.13-slim AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

RUN python -m venv /opt/bridge && python -m venv /opt/build

# Versions and hashes are the lock's; what builds the project stays behind in this stage.
COPY requirements/build.txt requirements/run.txt requirements/functions.txt requirements/
RUN /opt/build/bin/pip install --no-deps --require-hashes -r requirements/build.txt \
    && /opt/bridge/bin/pip install --no-deps --require-hashes -r requirements/run.txt \
    && /opt/bridge/bin/pip install --no-deps --require-hashes --target /opt/bridge/share/bridge/packages -r requirements/functions.txt

COPY pyproject.toml README.md LICENSE ./
COPY bridge bridge
RUN /opt/build/bin/hatchling build -t wheel -d /dist \
    && /opt/bridge/bin/pip install --no-deps --no-index /dist/*.whl \
    && /opt/bridge/bin/python -m compileall -q /opt/bridge/lib \
    && /opt/bridge/bin/pip uninstall --yes pip


FROM python:3.13-slim

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/bridge --shell /usr/sbin/nologin bridge \
    && install --directory --owner bridge --group bridge --mode 0700 /var/lib/bridge

COPY --from=build /opt/bridge /opt/bridge
COPY config/quickstart.toml /etc/bridge/bridge.toml
COPY config/functions /srv/functions
# Paths in a configuration are relative to its file: the quickstart's functions/ is /srv/functions here.
RUN ln -s /srv/functions /etc/bridge/functions

ENV PATH=/opt/bridge/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    BRIDGE_PUBLIC=0.0.0.0:8580 \
    BRIDGE_API=0.0.0.0:8581 \
    BRIDGE_TLS=upstream \
    BRIDGE_STATE=/var/lib/bridge

USER 10001:10001
WORKDIR /var/lib/bridge
VOLUME ["/var/lib/bridge"]
EXPOSE 8580 8581
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8581/health', timeout=2)"]

ENTRYPOINT ["tini", "--", "bridge"]
CMD ["run", "/etc/bridge/bridge.toml"]
