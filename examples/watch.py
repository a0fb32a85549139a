"""A callback of `flows.fit` that draws while it learns: a picture after an epoch, and all of them as one animation."""

import math

from PIL import Image

FRAMES, SECONDS = 200, 10  # of an animation, at most


class Watch:
    """Draws after epochs, by `draw(epoch, path)`, not before `apart` seconds have gone by since the last picture."""

    def __init__(self, folder, draw, apart=0.0):
        self.folder, self.draw, self.apart, self.last = folder, draw, apart, -math.inf
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, epoch):
        if epoch.seconds - self.last >= self.apart or epoch.number + 1 == epoch.max_epochs:
            self.draw(epoch, self.folder / f"epoch_{epoch.number + 1:04}.jpg")
            self.last = epoch.seconds

    def animate(self, path):
        """The pictures in a row, of runs that this one goes on from, too; the last one stays for a while."""
        files = sorted(self.folder.glob("epoch_*.jpg"), key=lambda file: int(file.stem.partition("_")[2]))
        files = files[:: -(-len(files) // FRAMES)][:-1] + files[-1:] if len(files) > FRAMES else files
        if not files:
            return
        images = [Image.open(file) for file in files]
        images = [image.convert("RGB").resize(images[0].size) for image in images]
        each = 1_000 * SECONDS // max(len(images), 50)
        times = [each] * (len(images) - 1) + [3_000]
        images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0, quality=60, method=4)
