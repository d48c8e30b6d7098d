"""Long jobs over data: what is finished stays finished, whenever a job is killed."""
