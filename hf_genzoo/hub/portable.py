"""What a published pipeline file carries at its end, so that a copy saved with `save_pretrained` loads again.

Where hf_genzoo is not installed, diffusers runs a repository's code files, and its own `save_pretrained` then writes
names of its module cache into model_index.json and leaves the code behind: nobody can load such a folder. This file's
text is appended to the pipeline's when it is exported, with a call of `take_code_along`; so it imports the standard
library only.
"""

import inspect
import json
import shutil
from pathlib import Path


def take_code_along(cls: type) -> None:
    """Let a pipeline class save the code files of itself and of its components beside the weights."""
    plain = cls.save_pretrained  # type: ignore[attr-defined]

    def save_pretrained(
        self, save_directory, safe_serialization=True, variant=None, max_shard_size=None, push_to_hub=False, **kwargs
    ):
        """As `DiffusionPipeline.save_pretrained`, with the code files beside the weights."""
        folder = Path(save_directory)
        names = ("repo_id", "private", "token", "commit_message", "create_pr")
        hub = {name: kwargs.pop(name) for name in names if name in kwargs}
        plain(self, folder, safe_serialization, variant, max_shard_size, **kwargs)
        path = folder / "model_index.json"
        index = json.loads(path.read_text(encoding="utf-8"))
        for name, part in {"_class_name": self, **self.components}.items():
            cls = type(getattr(part, "_orig_mod", part))  # compiled modules are wrapped
            if cls.__module__.split(".")[0] != "diffusers_modules":
                continue
            file = Path(inspect.getsourcefile(cls) or "")
            shutil.copyfile(file, (folder if name == "_class_name" else folder / name) / file.name)
            index[name] = [file.stem, cls.__name__]
        path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        if push_to_hub:  # diffusers saves once more, to a temporary folder, and uploads that
            how = {"safe_serialization": safe_serialization, "variant": variant, **hub}
            self.push_to_hub(how.pop("repo_id", folder.name), **how)

    cls.save_pretrained = save_pretrained  # type: ignore[attr-defined]
