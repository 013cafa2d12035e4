"""What is said on a pipe between a client and the writer: messages and frames. Pure.

================  ==================================================================
`messages`        each message, declared once
`group_messages`  those of groups and their members
`table`           all messages, and who may say which of them when
`connection`      one end of a pipe: bytes in, messages out; and who is at the other end
================  ==================================================================
"""
