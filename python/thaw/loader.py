"""Importing an author's file, and finding the app and its objects in it."""

from __future__ import annotations

import importlib.util
import os
import sys
from types import ModuleType

from .app import App
from .definition import Definition
from .errors import InvalidError


def import_file(path: str) -> ModuleType:
    """Imports a file as the module of its name, with its folder first on the path, so that it finds the files beside it."""
    path = os.path.abspath(path)
    folder, name = os.path.dirname(path), os.path.splitext(os.path.basename(path))[0]
    if not os.path.isfile(path):
        raise InvalidError(f"there is no file {path}")
    if not name.isidentifier():
        raise InvalidError(f"{os.path.basename(path)} cannot be imported: {name} is no name of a module; rename the file")
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == path:
        return loaded
    if loaded is not None or name in sys.stdlib_module_names:
        raise InvalidError(f"{os.path.basename(path)} has the name of another module, {name}, and would hide it; rename the file")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidError(f"{os.path.basename(path)} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def find_app(module: ModuleType) -> App:
    """The one app of a module. Raises InvalidError if there is none, or more than one."""
    apps: list[App] = list({id(value): value for value in vars(module).values() if issubclass(type(value), App)}.values())
    file = os.path.basename(module.__file__ or module.__name__)
    if not apps:
        raise InvalidError(f'{file} has no app: write app = thaw.App("{module.__name__}") at the top level of the file')
    if len(apps) > 1:
        raise InvalidError(f"{file} has {len(apps)} apps ({', '.join(app.name for app in apps)}): a file has one")
    if not apps[0].objects:
        raise InvalidError(f"the app {apps[0].name} is empty: put @app.cls() above a class, or @app.function() above a function")
    return apps[0]


def find_object(app: App, name: str) -> Definition:
    """An object by its name. Raises InvalidError if the app has none of that name."""
    found = app.objects.get(name)
    if found is None:
        raise InvalidError(f"the app {app.name} has no object {name}: it has {', '.join(app.objects)}")
    return found


def sources(folder: str) -> list[str]:
    """The files below a folder that have been imported, relative to it, sorted. Installed packages are not among them."""
    root = os.path.realpath(folder) + os.sep
    found = set()
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) if type(module) is ModuleType else None
        path = os.path.realpath(file) if isinstance(file, str) else ""
        if path.startswith(root) and not {"site-packages", "dist-packages"} & set(path.split(os.sep)):
            found.add(path[len(root) :])
    return sorted(found)
