# One image for the site, the producer and the workers of docker-compose.yml; each names its own command.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY rq_lite ./rq_lite
# Wheels only: whatever would need a compiler is an error here.
RUN pip install --no-cache-dir --only-binary=:all: --prefix=/installed '.[demo]'

FROM python:3.12-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /installed /usr/local
WORKDIR /app
COPY pyproject.toml ./
COPY workers ./workers
COPY producer ./producer
# By number, so that Kubernetes' runAsNonRoot can tell what it is.
USER 10001:10001
CMD ["rq-lite", "work", "workers"]
