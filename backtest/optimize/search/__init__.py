"""The search: sampling, storage, processes that share a study, the ledger of trials."""
