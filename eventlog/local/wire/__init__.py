"""What is said on a pipe between a client and the writer: messages and frames. Pure.

================  ==================================================================
`messages`        the messages, and how a frame is made of one
`group_messages`  those of groups and their members
`codec`           frames to messages: types, bounds, what is refused
`connection`      one end of a pipe: bytes in, messages out, in their order
`peer`            the other end, as whoever answers sees it
================  ==================================================================
"""
