/*-------------------------------------------------------------------------
 *
 * neighbours.c
 *		The workers of bbm in other servers on this machine.
 *
 * NOTES
 *	  A worker leaves most of a busy machine to others.  Where several servers
 *	  run on one machine, as the nodes of a cluster may, workers in one of them
 *	  are no application that those in another one have to leave the CPUs to:
 *	  each would make room for the other, and nobody would use it.
 *
 *	  A server does not know of the others, and to search all processes of the
 *	  machine takes too long.  So each worker makes an empty file with the number
 *	  of its process as its name, in a directory of the memory file system that
 *	  belongs to the servers' user of the operating system.  The files are only
 *	  hints, as a process may be killed, and its number be used again: what
 *	  counts is the title of the process, which the server has given it.  A server
 *	  that runs as another user has another directory, and counts as any other
 *	  program; so does one whose directory cannot be made, or belongs to somebody
 *	  else.
 *
 *-------------------------------------------------------------------------
 */
#include "base/neighbours.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/timestamp.h"

#include "base/compat.h"

/* Where the files are; the number is the user's. */
#define BBM_NEIGHBOURS_DIRECTORY "/dev/shm/bbm.%u"

/* What the title of a worker begins with, and has in it: the name of its cluster may be in between. */
#define BBM_TITLE_BEGIN "postgres: "
#define BBM_TITLE_WORKER "bbm worker for database "

/* The file of this process; empty: it has none. */
static char announced[MAXPGPATH] = "";

/* Finds the directory, and makes it if it is not there; false when it is not ours alone to write to. */
static bool
find_directory(char *path, size_t size, bool make, struct stat *status)
{
	snprintf(path, size, BBM_NEIGHBOURS_DIRECTORY, (unsigned) geteuid());
	if (make)
		(void) mkdir(path, S_IRWXU);
	return lstat(path, status) == 0 && S_ISDIR(status->st_mode) && status->st_uid == geteuid() &&
		(status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

static void
withdraw(int code, Datum arg)
{
	(void) unlink(announced);
}

/* This process is a worker, until it exits: lets the workers of other servers know. */
void
bbm_neighbours_announce(void)
{
	char		directory[MAXPGPATH];
	struct stat status;
	int			fd;

	if (announced[0] != '\0' || !find_directory(directory, sizeof(directory), true, &status))
		return;
	snprintf(announced, sizeof(announced), "%s/%d", directory, MyProcPid);
	fd = OpenTransientFile(announced, O_CREAT | O_WRONLY | PG_BINARY);
	if (fd < 0)
	{
		announced[0] = '\0';
		return;
	}
	CloseTransientFile(fd);
	on_proc_exit(withdraw, (Datum) 0);
}

/* Is that process a worker of bbm, as far as its title tells?  It is none if it is gone. */
static bool
is_worker(pid_t pid)
{
	char		path[64];
	char		title[256];
	int			fd;
	ssize_t		length;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int) pid);
	fd = OpenTransientFile(path, O_RDONLY | PG_BINARY);
	if (fd < 0)
		return false;
	length = read(fd, title, sizeof(title) - 1);
	CloseTransientFile(fd);
	title[Max(length, 0)] = '\0';
	return strncmp(title, BBM_TITLE_BEGIN, strlen(BBM_TITLE_BEGIN)) == 0 && strstr(title, BBM_TITLE_WORKER) != NULL;
}

/*
 * Finds the workers of bbm on this machine, those of this server among them:
 * their processes, at most so many.  Returns how many they are.  Files of
 * workers that were killed are removed.
 */
int
bbm_neighbours_find(pid_t *pids, int most)
{
	char		directory[MAXPGPATH];
	DIR		   *dir = NULL;
	struct dirent *entry;
	struct stat status;
	int			n = 0;

	if (find_directory(directory, sizeof(directory), false, &status))
		dir = AllocateDir(directory);
	if (dir == NULL)
		return 0;
	while (n < most && (entry = ReadDirExtended(dir, directory, DEBUG1)) != NULL)
	{
		pid_t		pid = (pid_t) strtol(entry->d_name, NULL, 10);
		char		path[MAXPGPATH * 2];

		if (pid <= 0)
			continue;
		if (is_worker(pid))
			pids[n++] = pid;
		else
		{
			snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
			(void) unlink(path);
		}
	}
	FreeDir(dir);
	return n;
}

/*
 * When a worker on this machine, whose server runs as this user, has last begun
 * or ended; 0 if that is not known.  Several that did so at about the same time
 * may have the same time.
 */
TimestampTz
bbm_neighbours_changed_at(void)
{
	char		path[MAXPGPATH];
	struct stat status;

	if (!find_directory(path, sizeof(path), false, &status))
		return 0;
	return time_t_to_timestamptz(status.st_mtime) + BBM_STAT_MTIME_NS(&status) / 1000;
}
