"""A chart in a notebook without a network: Vega comes along, packed, and a picture for where no script runs.

JupyterLab and VS Code run the scripts of an output. Altair's own HTML loads Vega from another host instead,
and which versions of Vega-Lite a notebook draws by itself differs between programs.
"""

from __future__ import annotations

import base64
import json
from itertools import count
from typing import Any

from runner.views import alt
from runner.views.bundle import packed_vega
from runner.views.figures import render, specification

_SHOWN = count()
_HTML = """<div id="{name}"><img alt="runner chart" src="data:image/svg+xml;base64,{picture}"></div>
<script>
(async () => {{
  const beside = document.currentScript && document.currentScript.previousElementSibling;
  const place = beside && beside.id === "{name}" ? beside : document.getElementById("{name}");
  window.runnerVega ??= (async () => {{
    const packed = Uint8Array.from(atob("{vega}"), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const tag = document.createElement("script");
    tag.textContent = await new Response(stream).text();
    document.head.append(tag);
    return window.runnerEmbed;
  }})();
  const embed = await window.runnerVega;
  await embed(place, {spec}, {{mode: "vega-lite", renderer: "svg"}});
}})();
</script>
"""


def mimebundle(chart: Any, *args: Any, **keywords: Any) -> Any:
    """Return what a notebook shows of a chart: interactive HTML that needs no network, and an SVG.

    Where another renderer of Altair is switched on, ``alt.renderers.enable("jupyter")``, it has its way.
    """
    if alt.renderers.active != "default":
        return chart._repr_mimebundle_(*args, **keywords)
    spec = json.dumps(specification(chart), separators=(",", ":"), allow_nan=False)
    # No < in the data: neither the end of the script nor a comment can begin in a name.
    picture = render(chart, ".svg")
    text = _HTML.format(
        name=f"runner-chart-{next(_SHOWN)}",
        # In place of the chart until Vega is there, and for good where no script may run.
        picture=base64.b64encode(picture).decode(),
        vega=base64.b64encode(packed_vega("window.runnerEmbed = vegaEmbed;")).decode(),
        spec=spec.replace("<", "\\u003c"),
    )
    return {"text/html": text, "image/svg+xml": picture.decode(), "text/plain": "runner chart"}
