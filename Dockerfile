# Training on NVIDIA GPUs; docs/training.md has the command. Python's packages are pinned by
# requirements.txt; JAX brings CUDA's libraries, so the host needs a driver and the container toolkit.
FROM python:3.11-slim

WORKDIR /opt/fa-hific-jax
COPY requirements.txt .
RUN pip install --no-cache-dir uv==0.13.9 \
    && uv pip install --system --no-cache --requirement requirements.txt \
    && uv pip install --system --no-cache \
        "jax[cuda12]==$(python -c 'import jax; print(jax.__version__)')"
COPY . .
RUN pip install --no-cache-dir --no-deps --editable .

ENTRYPOINT ["python"]
CMD ["train.py", "--help"]
