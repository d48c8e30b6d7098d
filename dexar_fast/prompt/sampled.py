"""Which frames of its videos a processor sampled, as it says beside their pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

METADATA = "video_metadata"  # its name among the inputs


@dataclass(frozen=True)
class Sampled:
    """The frames of a video that were sampled, from 0; how many it has; and frames per second, if that is known."""

    frames: tuple[int, ...]
    total: int
    fps: float | None


def sampled(metadata: Any) -> tuple[Sampled, ...]:
    """Of each video; none where any is not told."""
    found = [_of_video(each) for each in _flat(metadata)]
    told = [each for each in found if each is not None]
    return tuple(told) if len(told) == len(found) else ()


def picked(pictures: Sequence[Image.Image], videos: Sequence[Sampled]) -> list[Image.Image] | None:
    """The images, and of all frames of the videos behind them those that were sampled; None: there are not so many."""
    images = len(pictures) - sum(video.total for video in videos)
    if images < 0 or not videos or all(len(video.frames) == video.total for video in videos):
        return None
    starts = itertools.accumulate((video.total for video in videos), initial=images)
    chosen = [start + frame for start, video in zip(starts, videos, strict=False) for frame in video.frames]
    return [*pictures[:images], *(pictures[number] for number in chosen)]


def described(clips: Sequence[int], videos: Sequence[Sampled]) -> list[dict[str, Any]]:
    """Of each frame that the model saw its video, its number in it, from 0, and its time in seconds if it is known."""
    told = [len(video.frames) for video in videos] == [*clips]
    named = videos if told else [Sampled(tuple(range(count)), count, None) for count in clips]
    return [
        {"video": number, "frame": frame} | ({"seconds": frame / video.fps} if video.fps else {})
        for number, video in enumerate(named)
        for frame in video.frames
    ]


def _flat(metadata: Any) -> Iterator[Any]:
    if isinstance(metadata, Mapping):
        yield metadata
    elif isinstance(metadata, Iterable) and not isinstance(metadata, str | bytes):
        for each in metadata:
            yield from _flat(each)


def _of_video(metadata: Mapping[str, Any]) -> Sampled | None:
    frames, total, fps = (metadata.get(name) for name in ("frames_indices", "total_num_frames", "fps"))
    try:
        numbers = () if frames is None else tuple(int(frame) for frame in frames)
        known = Sampled(numbers, int(total or 0), float(fps) if fps else None)
    except (TypeError, ValueError, RuntimeError):
        return None
    return known if numbers and min(numbers) >= 0 and max(numbers) < known.total else None
