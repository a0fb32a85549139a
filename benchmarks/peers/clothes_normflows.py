"""The Glow of normflows, trained on Fashion-MNIST for a number of minutes: see clothes.py.

As its documentation trains it, by Adamax at 1e-3 with a weight decay of 1e-5 and batches of 128; or as ours is trained, by Adam
whose rate rises and falls to 0 along a cosine, with clipped gradients, batches of 32 and the average of params. Pixels have
noise and are in [0, 1), or are logits. The time counts from the start of the process. Called with JSON: "data", "out",
"minutes", "layers", "width", "levels", "alpha", which is null for pixels as they are, and "rate", null for the first way.
"""

import json
import math
import sys
import time

began = time.monotonic()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from glow_of_torch import of_normflows  # noqa: E402
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn  # noqa: E402

given = json.loads(sys.argv[1])
BATCH, PIECE, SAMPLES = 32 if given["rate"] else 128, 500, 60
CLIP, DECAY, START = 5.0, 0.998, 0.05
torch.manual_seed(0)
with np.load(given["data"]) as file:
    train, test = (torch.from_numpy(file[name].transpose(0, 3, 1, 2).copy()) for name in ("train", "test"))


def transform():
    """Logits of alpha + (1 - 2 alpha) x, by the library itself."""
    if given["alpha"] is None:
        return None
    import normflows as nf

    return nf.transforms.Logit(given["alpha"])


def batch_of(images):
    """In [0, 1), with noise of one level."""
    return (images + torch.rand(images.shape)) / 256


channels, side = train.shape[1:3]
model, loss_of = of_normflows(channels, side, given["layers"], given["width"], given["levels"], transform())
scored = model
if given["rate"]:
    optimizer = torch.optim.Adam(model.parameters(), lr=given["rate"])
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    scored = average.module
else:
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-3, weight_decay=1e-5)


def as_ours():
    """What goes before a step: the rate of the time that is over, and the clip."""
    over = min((time.monotonic() - began) / (60 * given["minutes"]), 1.0)
    for group in optimizer.param_groups:
        falling = (1 + math.cos(math.pi * (over - START) / (1 - START))) / 2
        group["lr"] = given["rate"] * (over / START if over < START else falling)
    torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)


steps, skipped, lately = 0, 0, []
while time.monotonic() - began < 60 * given["minutes"]:
    for at in torch.randperm(len(train)).split(BATCH):
        optimizer.zero_grad()
        loss = loss_of(batch_of(train[at]))
        if torch.isfinite(loss):
            loss.backward()
            if given["rate"]:
                as_ours()
            optimizer.step()
            if given["rate"]:
                average.update_parameters(model)
        else:
            skipped += 1
        steps += 1
        lately = [*lately[-199:], loss.item() / test[0].numel() / np.log(2) + 8]
        if steps % 500 == 0:
            print(f"{steps} steps, {time.monotonic() - began:.0f} s, {np.mean(lately):.3f} bits", file=sys.stderr, flush=True)
        if time.monotonic() - began >= 60 * given["minutes"]:
            break
seconds = time.monotonic() - began
scored.eval()
with torch.no_grad():
    nats = torch.cat([-scored.log_prob(batch_of(piece), None) for piece in test.split(PIECE)]).double()
    drawn = scored.sample(SAMPLES)[0] * 256
bits = nats / test[0].numel() / np.log(2) + 8
finite = torch.isfinite(bits)
drawn = torch.nan_to_num(drawn).clamp(0, 255).floor().to(torch.uint8).permute(0, 2, 3, 1)
np.savez(given["out"], bits=bits.numpy(), samples=drawn.numpy())
print(json.dumps({
    "seconds": seconds, "steps": steps, "batch": BATCH, "skipped": skipped, "not finite": int((~finite).sum()),
    "num_params": sum(each.numel() for each in model.parameters() if each.requires_grad),
    "bits": float(bits[finite].mean()), "error": float(bits[finite].std() / finite.sum() ** 0.5),
}))  # fmt: skip
