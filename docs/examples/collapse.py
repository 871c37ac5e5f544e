import altair as alt

import runner

cells = runner.load("outputs/lr_transfer").cells
loss = cells.groupby(["parameterization", "width", "lr"]).agg(
    lr_sharpness=("lr_sharpness", "median"),
    train_loss=("train_loss", "median"),
    trained=("status", lambda status: (status == "ok").all()),
)
sp = loss.query("trained and parameterization == 'sp'").reset_index()
chart = (
    alt.Chart(sp)
    .mark_line(point=True)
    .encode(
        alt.X("lr_sharpness", title="lr * lambda_max at init").scale(type="log"),
        alt.Y("train_loss", title="train loss").scale(type="log"),
        color="width:O",
    )
)
chart.properties(width=230, height=160).save("collapse.svg")
