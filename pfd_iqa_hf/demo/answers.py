"""What the page and the programs' interface answer, made from the same assessments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from pfd_iqa_hf.demo.assess import Assessment, Assessor, named_record, ranked_pair
from pfd_iqa_hf.demo.overlay import overlay, thumbnail_address
from pfd_iqa_hf.demo.panels import (
    Row,
    Scale,
    comparison_panel,
    error_panel,
    many_panel,
    score_panel,
)
from pfd_iqa_hf.demo.uploads import read_upload
from pfd_iqa_hf.modeling.picture_reading import PictureError

__all__ = ["EMPTY", "EMPTY_MANY", "EMPTY_PAIR", "ORDERS", "PageAnswers", "ProgramAnswers"]

Record = dict[str, Any]
File = Mapping[str, Any]

ORDERS = ("worst", "best", "input")
EMPTY = '<div class="pfd-empty">Upload or paste a picture to see its score.</div>'
EMPTY_PAIR = '<div class="pfd-empty pfd-flat">Upload two pictures of your choice.</div>'
EMPTY_MANY = '<div class="pfd-empty pfd-flat">Choose or drop several files.</div>'


class _Reader:
    """Assesses uploaded files."""

    def __init__(self, assessor: Assessor) -> None:
        self.assessor = assessor

    def _assess(self, file: File, with_map: bool = False) -> Assessment:
        data, name = read_upload(file, self.assessor.limits.max_file_bytes)
        return self.assessor.assess(data, name, with_map)

    def _rows(self, files: Sequence[File], with_thumbnails: bool) -> list[Row]:
        rows = []
        for file in files:
            try:
                assessment = self._assess(file)
            except PictureError as error:
                message = f"{error.reason}; {error.remedy}"
                rows.append(Row(named_record(error.source, self.assessor.origin, error=message)))
                continue
            small = thumbnail_address(assessment.preview) if with_thumbnails else ""
            rows.append(Row(assessment.record, small))
        return rows

    def _check_number(self, files: Sequence[File]) -> None:
        limit = self.assessor.limits.max_pictures
        if len(files) > limit:
            raise PictureError(
                f"{len(files)} files",
                f"are more than the {limit} of one call",
                "send fewer at a time, or use `pfd-iqa score` for whole folders",
            )


class ProgramAnswers(_Reader):
    """Plain JSON for `gradio_client`; what cannot be scored is an error with one readable line."""

    def assess(self, picture: File | None) -> Record:
        """Score one picture from 0 (worst) to 100 (best); a record as of `pfd-iqa score`."""
        try:
            return self._assess(_given(picture, "picture")).record
        except PictureError as error:
            raise _told(error) from None

    def compare(self, first: File | None, second: File | None) -> Record:
        """Say which of two pictures looks better, and how surely; as `pfd-iqa compare --json`."""
        try:
            a = self._assess(_given(first, "first")).record
            b = self._assess(_given(second, "second")).record
        except PictureError as error:
            raise _told(error) from None
        return ranked_pair(a, b, self.assessor.origin)

    def assess_many(self, pictures: Sequence[File] | None, order: str = "worst") -> list[Record]:
        """Score several pictures; one that fails has its reason in `error`, the last in order.

        `order` is worst (first), best (first) or input.
        """
        if order not in ORDERS:
            raise gr.Error(
                f"order: {order!r} is not one of {', '.join(ORDERS)}", print_exception=False
            )
        try:
            self._check_number(pictures or [])
        except PictureError as error:
            raise _told(error) from None
        records = [row.record for row in self._rows(pictures or [], with_thumbnails=False)]
        if order == "input":
            return records
        scored = [record for record in records if record["error"] is None]
        failed = [record for record in records if record["error"] is not None]
        scored.sort(key=lambda record: record["score"], reverse=order == "best")
        return scored + failed


class PageAnswers(_Reader):
    """HTML for the page; what cannot be scored is told where its score would stand."""

    def __init__(self, assessor: Assessor) -> None:
        """Answer with `assessor`."""
        super().__init__(assessor)
        self._scale = Scale(assessor.level_names, assessor.level_borders)

    def assess(self, picture: File | None) -> tuple[str, str]:
        """The score panel, and the quality map's figure."""
        if not picture:
            return EMPTY, ""
        try:
            assessment = self._assess(picture, with_map=True)
        except PictureError as error:
            return error_panel(error), ""
        assert assessment.quality_map is not None  # it was asked for
        figure = overlay(assessment.preview, assessment.quality_map, assessment.record["name"])
        return score_panel(assessment, self._scale), figure

    def compare(self, first: File | None, second: File | None) -> str:
        """The comparison panel, once both pictures are there."""
        if not first or not second:
            return EMPTY_PAIR
        try:
            a, b = self._assess(first), self._assess(second)
        except PictureError as error:
            return error_panel(error)
        ranked = ranked_pair(a.record, b.record, self.assessor.origin)
        return comparison_panel(a, b, ranked, self._scale, self.assessor.is_default)

    def assess_many(
        self, pictures: Sequence[File] | None, order: str
    ) -> tuple[str, list[Row] | None]:
        """The table, and its rows for `arrange`."""
        if not pictures:
            return EMPTY_MANY, None
        try:
            self._check_number(pictures)
        except PictureError as error:
            return error_panel(error), None
        rows = self._rows(pictures, with_thumbnails=True)
        return self.arrange(rows, order), rows

    def arrange(self, rows: list[Row] | None, order: str) -> str:
        """The table in another order; nothing is scored again."""
        return many_panel(rows, order, self._scale) if rows else EMPTY_MANY


def _given(file: File | None, name: str) -> File:
    if not file:
        raise PictureError(name, "is missing", "send a picture's file")
    return file


def _told(error: PictureError) -> gr.Error:
    # Without its trace in the server's log: a broken picture is nobody's mistake there.
    return gr.Error(str(error), print_exception=False, title="The picture cannot be scored")
