"""What is refused about usage and quotas.

NotFound            QuotaNotFound
AlreadyExists       QuotaExists
InvalidArgument     InvalidQuota · InvalidPeriod · InvalidReservation
ResourceExhausted   QuotaExceeded
"""

from espalier_common.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted


class QuotaNotFound(NotFound):
    reason = "QUOTA_NOT_FOUND"


class QuotaExists(AlreadyExists):
    reason = "QUOTA_EXISTS"


class InvalidQuota(InvalidArgument):
    reason = "INVALID_QUOTA"


class InvalidPeriod(InvalidArgument):
    reason = "INVALID_PERIOD"


class InvalidReservation(InvalidArgument):
    reason = "INVALID_RESERVATION"


class QuotaExceeded(ResourceExhausted):
    """A limit of the user or of one of his groups would be passed; says which, how much, and when it begins anew."""

    reason = "QUOTA_EXCEEDED"
