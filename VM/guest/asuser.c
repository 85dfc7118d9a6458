// asuser UID COMMAND...: runs COMMAND as an ordinary user with no other groups.
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int count, char **words) {
  if (count < 3) {
    fputs("usage: asuser UID COMMAND...\n", stderr);
    return 2;
  }
  int user = atoi(words[1]);
  if (setgroups(0, NULL) || setgid(user) || setuid(user)) {
    perror("asuser");
    return 111;
  }
  execvp(words[2], words + 2);
  perror(words[2]);
  return 127;
}
