# One image for the site, the producer and the workers of docker-compose.yml; each names its own command.

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /installed
COPY requirements.txt ./
# Wheels only: whatever would need a compiler is an error here.
RUN /installed/bin/pip install --no-cache-dir --only-binary=:all: --require-hashes --requirement requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY rq_lite ./rq_lite
RUN /installed/bin/pip install --no-cache-dir --no-build-isolation --no-deps .

FROM python:3.13-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/installed/bin:$PATH
COPY --from=build /installed /installed
WORKDIR /app
COPY pyproject.toml ./
COPY workers ./workers
COPY producer ./producer
# By number, so that Kubernetes' runAsNonRoot can tell what it is.
USER 10001:10001
CMD ["rq-lite", "work", "workers"]
