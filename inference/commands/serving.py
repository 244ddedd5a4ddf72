"""Commands that start, show and end the service."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from contract.cli.app import create_command_group, example_epilog, load_settings, write_text
from contract.cli.options import ConfigFile, Lenient, Overrides, ShowConfig, Verbose
from contract.config import Config
from contract.errors import ClusterError, RegistryError

app = create_command_group()


@app.command(epilog=example_epilog("segfleet deploy configs/demo.toml serve.port=8080"))
def deploy(
    config: ConfigFile,
    overrides: Overrides = None,
    show_config: ShowConfig = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", help="Write a config file for `serve deploy` and start nothing."),
    ] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Write a RayService manifest for KubeRay instead.")
    ] = False,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Serve the model of serve.model over HTTP.

    On a local cluster until Ctrl-C, on another one until `segfleet shutdown`.
    """
    from inference.serving.client import (
        read_api_key,
        reserve_address,
        service_url,
        wait_for_signal,
    )

    settings = load_settings(config, overrides, show_config, lenient=lenient)
    if kubernetes and not write:
        raise typer.BadParameter("needs --write FILE", param_hint="--kubernetes")
    if write:
        _write_manifest(settings, write, kubernetes)
        return
    key = read_api_key(settings.serve)
    _check_model(settings)
    from cluster.connection import has_address, ray_session
    from inference.serving.deployment import ReplicaSpec
    from inference.serving.request_parsing import key_digest_of
    from inference.serving.service import start_service, stop_service

    digest = key_digest_of(key) if key else None
    reserved = nullcontext() if has_address(settings.cluster) else reserve_address(settings.serve)
    with reserved, ray_session(settings.cluster) as session:
        spec = ReplicaSpec(settings.serve, settings.storage.root, digest, session.is_local)
        start_service(spec, settings.cluster.start_timeout_s)
        typer.echo(f"{settings.serve.model} is served at {service_url(settings.serve)}")
        if not session.is_local:
            typer.echo("it stays on the cluster until `segfleet shutdown`")
            return
        typer.echo("Ctrl-C stops it, and the local cluster it runs on")
        wait_for_signal()
        stop_service()


@app.command(epilog=example_epilog("segfleet shutdown configs/cloud.toml"))
def shutdown(
    config: ConfigFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """End the service on the cluster of CONFIG or RAY_ADDRESS."""
    settings = load_settings(config, overrides, lenient=lenient)
    from cluster.connection import has_address, ray_session
    from inference.serving.service import stop_service

    if not has_address(settings.cluster):
        raise ClusterError(
            "neither cluster.address nor RAY_ADDRESS names a cluster: a service on a local "
            "cluster ends with Ctrl-C where `segfleet deploy` runs."
        )
    with ray_session(settings.cluster):
        typer.echo("the service has ended" if stop_service() else "there was no service")


@app.command(epilog=example_epilog("segfleet service configs/demo.toml serve.port=8080"))
def service(
    config: ConfigFile,
    overrides: Overrides = None,
    lenient: Lenient = False,
    verbose: Verbose = False,
) -> None:
    """Print the model and the status of a running service.

    It is the service at serve.host and serve.port.
    """
    from inference.serving.client import create_service_client

    settings = load_settings(config, overrides, lenient=lenient)
    client = create_service_client(settings.serve)
    model, current = client.model(), client.status()
    rows = {
        "model": f"{model.reference} = version {model.version}, run {model.run}, {model.engine}",
        "input": f"{model.image_size[1]} x {model.image_size[0]} pixels, "
        f"{'grey' if model.image_channels == 1 else 'RGB'}"
        + (f", stacks of {2 * model.neighbours + 1} slices" if model.neighbours else ""),
        "replicas": "; ".join(
            f"version {replica.version}" + (f" at {replica.url}" if replica.url else "")
            for replica in current.replicas
        ),
        "requests": f"{current.requests}, of these rejected {current.rejected}, failed "
        f"{current.errors}",
    }
    if current.latency_s:
        percentiles = current.latency_s.model_dump().items()
        rows["latency"] = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in percentiles)
    load_errors = {replica.load_error for replica in current.replicas if replica.load_error}
    rows |= {"error": " ".join(sorted(load_errors))} if load_errors else {}
    for name, text in rows.items():
        typer.echo(f"{name:10} {text}")


def _write_manifest(settings: Config, path: Path, kubernetes: bool) -> None:
    """Write the file for Ray Serve's own commands or for KubeRay, and say how to use it."""
    from cluster.kubernetes import object_name, rayservice_yaml
    from inference.serving.serve_application import render_serve_config, serve_config

    if kubernetes:
        name = object_name(settings.serve.model.partition("@")[0], "-service")
        write_text(path, rayservice_yaml(settings, name, serve_config(settings)))
        typer.echo(f"written: {path}; start the service with `kubectl apply -f {path}`")
    else:
        write_text(path, render_serve_config(settings))
        typer.echo(f"written: {path}; start the service with `serve deploy {path}`")


def _check_model(config: Config) -> None:
    """Raise RegistryError naming serve.model if there is no valid bundle for it."""
    from contract.registry import Registry, open_version_bundle
    from contract.storage import open_storage

    reference = config.serve.model
    try:
        open_version_bundle(Registry(open_storage(config.storage.root)).resolve(reference))
    except RegistryError as error:
        raise RegistryError(
            f"serve.model = {reference!r} cannot be served, because {error}"
        ) from error
