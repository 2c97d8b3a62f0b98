/* commands.h - one function per command of the program; argv[0] is the command's name, the result the
 * exit status: 0 well, 1 failed, 2 the request itself was wrong. */
#ifndef SCHEDULER_COMMANDS_COMMANDS_H
#define SCHEDULER_COMMANDS_COMMANDS_H

int run_command(int argc, char **argv);      /* cmd_run.c */
int launch_command(int argc, char **argv);   /* cmd_launch.c */
int generate_command(int argc, char **argv); /* cmd_generate.c */
int score_command(int argc, char **argv);    /* cmd_score.c */
int tokenize_command(int argc, char **argv); /* cmd_tokenize.c */
int export_command(int argc, char **argv);   /* cmd_export.c */
int replay_command(int argc, char **argv);   /* cmd_replay.c */
int inspect_command(int argc, char **argv);  /* cmd_inspect.c */
int calibrate_command(int argc, char **argv); /* cmd_calibrate.c */
int top_command(int argc, char **argv);      /* cmd_top.c */
int bench_command(int argc, char **argv);    /* cmd_bench.c */
int simulate_command(int argc, char **argv); /* cmd_simulate.c */
int throughput_command(int argc, char **argv); /* cmd_throughput.c */
int report_command(int argc, char **argv);   /* cmd_report.c */

#endif
