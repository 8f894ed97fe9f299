"""The webhook bridge: a consumer of the event channels that delivers webhooks, with days of patience."""
