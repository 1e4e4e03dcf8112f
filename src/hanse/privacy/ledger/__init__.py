"""What has been spent on a data set: a file that is charged before anything is released."""

from hanse.privacy.ledger.entries import Account, Entry, Receipt
from hanse.privacy.ledger.ledger import Accountant, Ledger

__all__ = ["Account", "Accountant", "Entry", "Ledger", "Receipt"]
