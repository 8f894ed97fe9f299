"""The wire messages: requests, events, commands and their envelope. Imports nothing of ours."""
