"""Whether a comparison's folder still holds what its records tell of."""

from __future__ import annotations

from pathlib import Path

from .paradigm_records import MANIFEST_FILE, check_settings, file_hashes, read_record

__all__ = ["verify_paradigms"]


def verify_paradigms(output: str | Path) -> int:
    """Looks at every file of every run again.

    Args:
        output: folder of [`wallaroo_hf.evaluation.paradigms.compare_paradigms`].

    Returns:
        How many runs it has.

    Raises:
        ValueError: naming the first file that is missing, changed or damaged, or a run that was made with other settings.
    """
    output = Path(output)
    manifest = read_record(output / MANIFEST_FILE)
    if manifest is None:
        raise ValueError(f"'{output}' has no {MANIFEST_FILE}; give the folder of a comparison of paradigms.")
    runs = sorted(path for name in manifest["families"] for path in (output / name).glob("seed-*/run.json"))
    for path in runs:
        run = read_record(path)
        assert run is not None
        check_settings(path, run["settings"], manifest["settings"])
        missing = [name for name in run["files"] if not (path.parent / name).is_file()]
        if missing:
            raise ValueError(f"{path.parent / missing[0]} is missing; remove {path}, and the run is judged anew.")
        found = file_hashes(path.parent, list(run["files"]))
        changed = [name for name, digest in run["files"].items() if found[name] != digest]
        if changed:
            raise ValueError(
                f"{path.parent / changed[0]} is not what was judged; remove {path.parent}, and it is trained anew."
            )
    return len(runs)
