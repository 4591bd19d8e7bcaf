"""Pages as HTML, by the templates in `pages/`. The one module that needs Jinja2.

A page is made of parts, its blocks: a live page replaces those that have changed. Whatever a template prints goes
through `texts.shown` and is escaped for HTML then; nothing is marked as safe but the map, which escapes its own texts.
"""

import importlib.util
import json
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe

from directdownload.cli.view import units
from directdownload.dashboard import advice, texts
from directdownload.dashboard.routes import Page
from directdownload.dashboard.views import heatmap

#: Blocks that are no parts.
_FRAME = frozenset({"main"})


def available() -> bool:
    return importlib.util.find_spec("jinja2") is not None


class Renderer:
    def __init__(self) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("directdownload.dashboard", "pages"),
            autoescape=True,
            finalize=_finalized,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals.update(
            size=units.size,
            rate=units.rate,
            span=units.span,
            looks=json.dumps({code: list(look) for code, look in heatmap.LOOKS.items()}),
            classes=advice.CLASSES,
        )
        self._environment.globals["ui"] = self._environment.get_template("macros.html").module

    def parts(self, page: Page) -> dict[str, str]:
        """HTML by part, without the map."""
        template, layout = self._environment.get_template(f"{page.template}.html"), self._layout
        variables = {**self._variables(page), "map_markup": ""}
        return {
            name: "".join(block(source.new_context(variables)))
            for source in (layout, template)
            for name, block in source.blocks.items()
            if name not in _FRAME
        }

    def document(self, page: Page, live: str, version: str, query: Mapping[str, str]) -> str:
        """The whole page; `live` is the address that follows it from `version` on."""
        drawn = markupsafe.Markup(page.map.markup) if page.map is not None else ""  # noqa: S704 - escapes its texts
        variables = {
            **self._variables(page),
            **{"live": live, "version": version, "query": query, "map_markup": drawn},
        }
        return self._environment.get_template(f"{page.template}.html").render(variables)

    def message(self, title: str, *sentences: str) -> str:
        """A page that says why there is none."""
        return self._environment.get_template("message.html").render(title=title, sentences=sentences)

    def banner(self, text: str) -> str:
        """Instead of what a page shows while it is followed."""
        return str(markupsafe.Markup('<p class="banner lost" role="status">▽ {}</p>').format(texts.shown(text)))

    @property
    def _layout(self) -> jinja2.Template:
        return self._environment.get_template("layout.html")

    def _variables(self, page: Page) -> dict[str, Any]:
        return {"page": page.content, "title": page.title, "section": page.section}


def _finalized(value: object) -> object:
    if isinstance(value, markupsafe.Markup):
        return value
    if value is None:
        return units.UNKNOWN
    return texts.shown(value) if isinstance(value, str) else value
