"""Find out what happened to messages, from the log lines of the function and the API.

lines      a line of either log                  request_log    the queries that every log answers
open_log   the log of a deployment               log_file       the file that a local server writes
local_log  reads that file                       cloud_log      reads the log groups of a stack
search     where a message is now                history        its deliveries and their answers
key_use    when an API key was last used
retries    what the sender did after an answer   status         progress towards the private beta, and its report
"""
