/* trainer.h - the reference trainer: BF16 weights with FP32 master copy, one process, one socket.
 *
 * Commands: `drumroll trainer CONFIG [--set ...] [--connect ADDRESS]` and
 * `drumroll pretrain CONFIG --out DIR`.  Files: model_train.c (forward and backward through
 * OpenBLAS), adamw.c, objective.c (token-level clipped objective), trainer.c, pretrain.c.
 */
#ifndef TRAINER_BRIDGE_TRAINER_TRAINER_H
#define TRAINER_BRIDGE_TRAINER_TRAINER_H

/* argv[0] is the command's name; return the exit status. */
int trainer_command(int argc, char **argv);
int pretrain_command(int argc, char **argv);

#endif
