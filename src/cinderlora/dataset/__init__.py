"""Data sets: read them, say what is wrong with them, make a run's own view of them, sort them into buckets."""

from __future__ import annotations

from cinderlora.dataset.buckets import BucketPlan, bucket_plan
from cinderlora.dataset.check import difference_problems, inspect_dataset, size_problems
from cinderlora.dataset.data import Dataset, DatasetEntry, Picture, Subset
from cinderlora.dataset.decode import can_decode
from cinderlora.dataset.read import list_datasets
from cinderlora.dataset.sheet import contact_sheet
from cinderlora.dataset.view import View, ViewSubset, dataset_view, source_of

__all__ = [
    "BucketPlan",
    "Dataset",
    "DatasetEntry",
    "Picture",
    "Subset",
    "View",
    "ViewSubset",
    "bucket_plan",
    "can_decode",
    "contact_sheet",
    "dataset_view",
    "difference_problems",
    "inspect_dataset",
    "list_datasets",
    "size_problems",
    "source_of",
]
