"""What became of messages, by what the function and the API wrote of them.

lines      a line of either log                  request_log    what a log can be asked
open_log   which log a deployment has            log_file       the file that a local server writes
local_log  reads that file                       cloud_log      reads the log groups of a stack
search     where a message is now                history        its deliveries and their answers
key_use    when an API key was last used
retries    what the sender did after an answer   status         how near the private beta is, and its report
"""
