"""Audits: an attack on a private run, to see whether it keeps what it promises."""

from hanse.auditing.attack import audit
from hanse.auditing.report import Audit

__all__ = ["Audit", "audit"]
