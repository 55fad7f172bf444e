# Serves an artifact without Keras and TensorFlow. The artifact is a folder that is mounted at /artifact.
#
#   docker build -t crossroads-serve .
#   docker run --rm -p 8000:8000 -v "$PWD/runs/photos:/artifact:ro" crossroads-serve

FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /opt/crossroads
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN /opt/crossroads/bin/pip install --no-cache-dir -c constraints.txt '.[serve]'

FROM python:3.13-slim
COPY --from=build /opt/crossroads /opt/crossroads
RUN useradd --no-create-home --uid 10001 crossroads
USER 10001
ENV PATH=/opt/crossroads/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=2)"]
ENTRYPOINT ["crossroads", "serve", "--host", "0.0.0.0", "--port", "8000"]
CMD ["/artifact"]
