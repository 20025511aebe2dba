"""`genzoo demo`: flags and what is printed."""

import argparse
import threading
import webbrowser

from hf_genzoo.demo import playground_server

DESCRIPTION = """\
Open an app for a trained model in the browser: it samples, changes or paints pictures, whatever the model does, and
explores its latent space where it has one.

gan2d, in place of a model, is a playground: a small GAN in the plane that learns in the browser while one watches.
`genzoo publish gan2d --repo_id you/gan-playground` puts it on the Hub, for anyone to open."""
EPILOG = """\
examples:
  genzoo demo outputs/ddpm-digits      a folder that a training has left
  genzoo demo you/ddpm-digits          a repository on the Hub
  genzoo demo gan2d                    the playground, which needs no model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `genzoo demo`."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", help="Hub repository, exported folder, or gan2d")
    parser.add_argument("--revision", help="branch, tag or commit of the repository")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (%(default)s)")
    parser.add_argument("--port", type=int, help="a free one by default")
    parser.add_argument("--share", action="store_true", help="make a public link through gradio's servers")
    parser.add_argument("--no_browser", action="store_true", help="only print the address")


def run(args: argparse.Namespace) -> int:
    """Open the app and serve it until Ctrl-C."""
    if args.model == playground_server.NAME:
        if args.share or args.revision:
            raise ValueError(f"{args.model} is a page of its own: it takes neither --share nor --revision")
        _, url = playground_server.serve(args.host, args.port)
        if not args.no_browser:
            webbrowser.open(url)
    else:
        from hf_genzoo.demo.launcher import demo

        url = demo(
            args.model,
            revision=args.revision,
            host=args.host,
            port=args.port,
            share=args.share,
            open_browser=not args.no_browser,
        )
    print(f"{url}  (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        print()
    return 0
