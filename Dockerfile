# pertwise in a container; three targets: the command (default), `review`, and a dask `worker`.
#
#   docker build -t pertwise .                                      docker run --rm -v "$PWD":/work pertwise demo
#   docker build -t pertwise-review --target review .               docker run --network host -v "$PWD":/work pertwise-review plan.json
#   docker build -t pertwise-worker --target worker .               docker run -v /data:/data pertwise-worker tcp://scheduler:8786
#
# The torch that is installed is the one for CPUs: INDEX of another build brings CUDA.
FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist

FROM python:3.12-slim AS base
ARG INDEX=https://download.pytorch.org/whl/cpu
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 MPLBACKEND=Agg
COPY --from=build /dist /dist
RUN pip install --extra-index-url "$INDEX" "$(ls /dist/*.whl)[all]" && rm -r /dist \
    && useradd --create-home --uid 1000 pertwise && mkdir /work && chown pertwise /work
USER pertwise
WORKDIR /work

# Workers of `--dask tcp://scheduler:8786`: files and the work folder under the same path everywhere.
FROM base AS worker
ENV OMP_NUM_THREADS=1
EXPOSE 8790
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8790/health', timeout=4)"]
ENTRYPOINT ["dask", "worker", "--nthreads", "1", "--dashboard-address", ":8790"]

# `review` listens on 127.0.0.1 of its network only: --network host makes that the machine's. Any
# answer means that it serves; without the word in its address the answer is 403.
FROM base AS review
ENV PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ['PORT']), timeout=4); c.request('GET', '/'); c.getresponse()"]
ENTRYPOINT ["sh", "-c", "exec pertwise review --no-browser --port \"$PORT\" \"$@\"", "review"]

FROM base AS command
ENTRYPOINT ["pertwise"]
CMD ["--help"]
