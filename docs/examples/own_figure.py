import altair as alt

import runner

store = runner.load("outputs/default")
rich = store.cells[store.cells["regime"] == "rich"]
columns = ["width", "parameterization", "ntk_change", "test_error"]
chart = alt.Chart(rich[columns]).mark_point()
chart = chart.encode(
    alt.X("ntk_change").scale(type="log"),
    y="test_error",
    color="parameterization",
    shape="parameterization",
)
chart.properties(width=230, height=180).save("rich.svg")  # 3.25 inches with the axis
