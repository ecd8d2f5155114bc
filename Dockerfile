# calib as an image: docker build -t calib . && docker run --rm -v "$PWD:/data" calib evaluate test.npz
# The base is pinned here, the packages in constraints.txt, which is for the same Python.
FROM python:3.11.13-slim-bookworm AS build

WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY calibcli calibcli
COPY docs docs
COPY man man
COPY sample_data sample_data
RUN python -m venv /calib \
    && /calib/bin/pip install --no-cache-dir --constraint constraints.txt ".[plot]"

FROM python:3.11.13-slim-bookworm

LABEL org.opencontainers.image.title="calib" \
      org.opencontainers.image.description="Post-hoc calibration of stored classifier logits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
COPY --from=build /calib /calib
RUN useradd --create-home --uid 1000 calib
ENV PATH="/calib/bin:$PATH" PYTHONUNBUFFERED=1
USER 1000
WORKDIR /data
ENTRYPOINT ["calib"]
CMD ["--help"]
