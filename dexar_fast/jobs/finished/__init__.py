"""What is finished of a job: its folder, its ledger, its table and its page."""
