"""Globs over asset paths, as `asset` in a scenario writes them."""

from fnmatch import fnmatchcase


def asset_matches(glob: str, path: str) -> bool:
    """Whether ``glob`` means the asset at ``path`` (`site/area/line/name`, roll-ups shorter).

    Without slashes it is held against the last level, at whatever depth that stands; with them
    against the whole path, level by level, so that `*` never spans a slash.

    >>> asset_matches("dcm*", "ningbo/casting/line1/dcm01"), asset_matches("casting", "ningbo")
    (True, False)
    """
    wanted, parts = glob.split("/"), path.split("/")
    if len(wanted) == 1:
        return fnmatchcase(parts[-1], wanted[0])
    return len(wanted) == len(parts) and all(map(fnmatchcase, parts, wanted))
